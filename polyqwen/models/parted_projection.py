"""Soft sharing: a projection of its own for each part of the rows, tied to the others' mean."""

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn


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
