"""From hidden states of variable length to one vector per content."""

import torch
from torch import Tensor, nn


def masked_softmax(scores: Tensor, mask: Tensor) -> Tensor:
    """Softmax over the last dimension in fp32; masked positions get 0, an empty row gets zeros.

    The lowest finite number stands for -inf, whose softmax over an empty row would be NaN.
    """
    scores = scores.float().masked_fill(~mask, torch.finfo(torch.float32).min)
    return torch.softmax(scores, dim=-1) * mask


class AttentionPooling(nn.Module):
    """Several learned queries, each a masked softmax over the sequence; a matrix joins the heads.

    u_i = h_iᵀ v_a,  a = softmax(u) over real tokens,  head = Σ a_i h_i,
    c = W_o [head_1; …; head_k]

    viPolyQwen, section 3.1.1.

    Args:
        hidden_size: H, width of the hidden states, > 0.
        num_queries: k, number of learned queries, > 0 (4 in the paper).
        init_std: standard deviation of the queries at the start, >= 0; at 0 the pooling starts as
            the mean, which small random models need in order to begin.
        gain: of the Xavier initialization of W_o, > 0; uniform within
            ``gain · sqrt(6 / (inputs + outputs))`` (Glorot and Bengio 2010).
    """

    def __init__(
        self,
        hidden_size: int,
        num_queries: int = 4,
        init_std: float = 0.02,
        gain: float = 1.0,
    ) -> None:
        super().__init__()
        if num_queries < 1:
            raise ValueError(f"pooling.num_queries must be at least 1, got {num_queries}")
        if init_std < 0:
            raise ValueError(f"pooling.init_std must not be negative, got {init_std}")
        if not 0.0 < gain < float("inf"):
            raise ValueError(f"pooling.gain must be a finite number > 0, got {gain}")
        self.queries = nn.Parameter(torch.randn(num_queries, hidden_size) * init_std)
        self.output = nn.Linear(num_queries * hidden_size, hidden_size)
        nn.init.xavier_uniform_(self.output.weight, gain)
        nn.init.zeros_(self.output.bias)

    def forward(self, hidden: Tensor, mask: Tensor) -> Tensor:
        """hidden (B, L, H), mask (B, L) -> (B, H)."""
        scores = torch.einsum("blh,kh->bkl", hidden, self.queries.to(hidden.dtype))  # (B, k, L)
        weights = masked_softmax(scores, mask[:, None, :]).to(hidden.dtype)  # (B, k, L)
        heads = torch.einsum("bkl,blh->bkh", weights, hidden)  # (B, k, H)
        return self.output(heads.flatten(1))  # (B, H)


class Parameterless(nn.Module):
    """Takes the width like every pooling, and needs it for nothing."""

    def __init__(self, hidden_size: int) -> None:
        super().__init__()


class MeanPooling(Parameterless):
    """The mean of the real tokens' hidden states, in fp32."""

    def forward(self, hidden: Tensor, mask: Tensor) -> Tensor:
        """hidden (B, L, H), mask (B, L) -> (B, H)."""
        weights = mask.float() / mask.sum(-1, keepdim=True).clamp(min=1)  # (B, L)
        return torch.einsum("bl,blh->bh", weights, hidden.float()).to(hidden.dtype)


class LastTokenPooling(Parameterless):
    """The hidden state of the last real token: in a causal model, it has read everything."""

    def forward(self, hidden: Tensor, mask: Tensor) -> Tensor:
        """hidden (B, L, H), mask (B, L) -> (B, H)."""
        positions = torch.arange(mask.shape[1], device=mask.device)
        last = (positions * mask).argmax(-1)  # (B,), right whichever side is padded
        return hidden[torch.arange(hidden.shape[0], device=hidden.device), last]


class ClsPooling(Parameterless):
    """The hidden state of the first real token (BERT's [CLS])."""

    def forward(self, hidden: Tensor, mask: Tensor) -> Tensor:
        """hidden (B, L, H), mask (B, L) -> (B, H)."""
        first = mask.int().argmax(-1)  # (B,)
        return hidden[torch.arange(hidden.shape[0], device=hidden.device), first]
