"""Projections from the pooled vector to the embedding; the unit norm is applied in the module."""

import copy
from collections.abc import Sequence

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
        gain: of the Xavier initialization of all matrices, > 0; uniform within
            ``gain · sqrt(6 / (inputs + outputs))`` (Glorot and Bengio 2010).
    """

    def __init__(
        self, input_size: int, output_size: int, alpha: float = 0.5, gain: float = 1.0
    ) -> None:
        super().__init__()
        if output_size < 1:
            raise ValueError(f"projection.output_size must be at least 1, got {output_size}")
        if not 0.0 <= alpha <= 1.0:
            raise ValueError(f"projection.alpha must lie in [0, 1], got {alpha}")
        if not 0.0 < gain < float("inf"):
            raise ValueError(f"projection.gain must be a finite number > 0, got {gain}")
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
                nn.init.xavier_uniform_(layer.weight, gain)
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


class PartedProjection(nn.Module):
    """Copies of a projection that may drift apart at a price.

        penalty = s · Σ_p ‖θ_p − θ̄‖²,  θ̄ the mean of the copies' parameters

    The copies start equal. s = 0 leaves them alone, a large s makes them one (hard sharing). L2
    ties between tasks' parameters: Duong et al. 2015, ACL, P15-2139, who tie two models to each
    other; with several, the mean is what all are tied to.

    Args:
        projection: (B, H) -> (B, D), with ``output_size``.
        parts: number of copies, >= 1.
        strength: s >= 0.
    """

    def __init__(self, projection: nn.Module, parts: int, strength: float) -> None:
        super().__init__()
        if not 0.0 <= strength < float("inf"):
            raise ValueError(f"sharing.strength must be a finite number >= 0, got {strength}")
        self.copies = nn.ModuleList(copy.deepcopy(projection) for _ in range(parts))
        self.output_size = projection.output_size
        self.strength = strength

    def forward(self, pooled: Tensor, sizes: Sequence[int]) -> Tensor:
        """(M, H) -> (M, D); the first ``sizes[0]`` rows are part 0's, and so on."""
        rows = pooled.split(list(sizes))
        return torch.cat([own(part) for own, part in zip(self.copies, rows, strict=True)])

    def penalty(self) -> Tensor:
        """A scalar with a graph through all copies, also at strength 0."""
        total = torch.zeros((), device=next(iter(self.parameters()), torch.zeros(())).device)
        for tied in zip(*(own.parameters() for own in self.copies), strict=True):
            values = torch.stack(tied)  # (P, …)
            total = total + (values - values.mean(dim=0)).square().sum()
        return self.strength * total
