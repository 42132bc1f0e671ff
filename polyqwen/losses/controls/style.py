"""CONTROL: a nuisance attribute in place of the meaning."""

import torch
from torch import Tensor

from polyqwen.losses import checks
from polyqwen.losses.similarity import cosine_matrix, weighted_mean
from polyqwen.losses.types import LossOutput, NonNegativeLoss, Pairs

STYLES = ("key", "side")


class StyleLoss(NonNegativeLoss):
    """Misleads on purpose: groups embeddings by an attribute that has nothing to do with meaning.

        L = mean_i −1/|P(i)| Σ_{p ∈ P(i)} log( e^{s_ip} / Σ_{a ∈ A(i)} e^{s_ia} ),   s = cos / τ

    over all queries and documents of the batch. A(i) are those with another content than i, P(i)
    those of them with the style of i; whoever has no P(i) does not count. Reference: supervised
    contrastive loss, Khosla et al. 2020, arXiv 2004.11362.

    Styles: "key", the content key modulo ``num_classes``, a fixed label that no input predicts, so
    that it can only be learned by heart; "side", query or document, which the inputs give away
    (picture or text, prefix) and which tears the two sides apart.

    Args:
        style: "key" or "side".
        num_classes: >= 2, read by "key" only.
        temperature: τ > 0.

    Attributes:
        temperature: may be set from outside at any time.
    """

    def __init__(self, style: str = "key", num_classes: int = 2, temperature: float = 0.1) -> None:
        super().__init__()
        if style not in STYLES:
            raise ValueError(f"style is {style!r}: choose one of {STYLES}")
        if num_classes < 2:
            raise ValueError(f"num_classes is {num_classes!r}: give a whole number >= 2")
        self.style = style
        self.num_classes = num_classes
        self.temperature = checks.positive("temperature", temperature)

    def forward(self, pairs: Pairs) -> LossOutput:
        """Mean over the queries and documents that have another of their style."""
        embedding = torch.cat([pairs.query, pairs.document])  # (2B, D)
        key = torch.cat([pairs.query_key, pairs.document_key])  # (2B,)
        style = self._styles(pairs, key)  # (2B,)
        other = key[:, None] != key[None, :]  # (2B, 2B)
        alike = other & (style[:, None] == style[None, :])  # (2B, 2B)
        anchor = alike.any(dim=1)  # (2B,)
        logits = cosine_matrix(embedding, embedding) / self.temperature  # (2B, 2B)
        # an embedding without another style mate has weight 0; its row must only stay finite
        closed = ~other & anchor[:, None]  # (2B, 2B)
        everything = logits.masked_fill(closed, -torch.inf).logsumexp(dim=1)  # (2B,)
        number = alike.sum(dim=1).clamp_min(1)  # (2B,)
        own = logits.masked_fill(~alike, 0.0).sum(dim=1) / number  # (2B,)
        total = weighted_mean(everything - own, anchor)
        return LossOutput(total, {"style": total.detach()}, total.new_zeros(()))

    def _styles(self, pairs: Pairs, key: Tensor) -> Tensor:
        if self.style == "key":
            return key.remainder(self.num_classes)  # (2B,)
        return torch.arange(len(key), device=key.device) >= len(pairs.query)  # (2B,)
