"""From the pooled vector to the embedding (the unit norm is applied once, in the module)."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class ResidualProjection(nn.Module):
    """A two-layer MLP blended with a linear shortcut by one learned scalar.

    p = LayerNorm(W2 GELU(W1 c + b1) + b2),  e = α p + (1 − α) W_r c

    viPolyQwen, section 3.1.2, whose formula adds W2·b2 where b2 is meant. W_r is the identity when
    the sizes match.

    Args:
        input_size: H, width of the pooled vector, > 0.
        output_size: D, width of the embedding, > 0.
        alpha: starting value of the learned blend, in [0, 1].
    """

    def __init__(self, input_size: int, output_size: int, alpha: float = 0.5) -> None:
        super().__init__()
        if output_size < 1:
            raise ValueError(f"projection.output_size must be at least 1, got {output_size}")
        if not 0.0 <= alpha <= 1.0:
            raise ValueError(f"projection.alpha must lie in [0, 1], got {alpha}")
        self.output_size = output_size
        self.hidden = nn.Linear(input_size, output_size)
        self.output = nn.Linear(output_size, output_size)
        self.norm = nn.LayerNorm(output_size)
        self.shortcut: nn.Module = (
            nn.Identity()
            if input_size == output_size
            else nn.Linear(input_size, output_size, bias=False)
        )
        self.alpha = nn.Parameter(torch.tensor(float(alpha)))
        for layer in self.modules():
            if isinstance(layer, nn.Linear):
                nn.init.xavier_uniform_(layer.weight, gain=1.0)
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)

    def forward(self, pooled: Tensor) -> Tensor:
        """(B, H) -> (B, D)."""
        transformed = self.norm(self.output(F.gelu(self.hidden(pooled))))  # (B, D)
        return self.alpha * transformed + (1.0 - self.alpha) * self.shortcut(pooled)


class IdentityProjection(nn.Module):
    """The pooled vector is the embedding.

    Args:
        input_size: H; taken so that every projection is built alike.
        output_size: must equal ``input_size`` or be None.
    """

    def __init__(self, input_size: int, output_size: int | None = None) -> None:
        super().__init__()
        if output_size not in (None, input_size):
            raise ValueError(
                f"projection.output_size={output_size} differs from the encoder's width "
                f"{input_size}; an identity projection keeps the width (use "
                "projection=residual to change it)"
            )
        self.output_size = input_size

    def forward(self, pooled: Tensor) -> Tensor:
        """(B, H) -> (B, H)."""
        return pooled
