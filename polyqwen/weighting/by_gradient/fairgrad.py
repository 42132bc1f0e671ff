"""FairGrad: alpha-fair progress of the tasks."""

from typing import Unpack

import torch
from torch import Tensor

from polyqwen.weighting.by_gradient.base import GradientArguments, GradientWeighting, cosines
from polyqwen.weighting.by_gradient.solvers import equilibrium


class FairGrad(GradientWeighting):
    """Maximises ``Σ_t (g_t · d)^(1−α) / (1−α)`` in a ball: ``G w = w^(−1/α)``, w > 0.

    Ban and Ji, "Fair Resource Allocation in Multi-Task Learning", 2024, arXiv:2402.15638. α = 0 is
    the mean, α = 1 is `NashMTL`, α → ∞ helps the worst-off task. Promises ``g_t · d = w_t^(−1/α) >
    0``; for α ≠ 1 the direction depends on the losses' scales.

    Deviations: solved to rounding by Newton's method in place of a least-squares search from equal
    weights. Degenerate: as `NashMTL`.

    Args:
        alpha: fairness, 0 or in [0.05, 100].
        shared: arguments of `GradientWeighting`.
    """

    def __init__(self, *, alpha: float = 1.0, **shared: Unpack[GradientArguments]) -> None:
        super().__init__(**shared)
        self.check(alpha == 0.0 or 0.05 <= alpha <= 100.0, "alpha", alpha, "0 or in [0.05, 100]")
        self.alpha = alpha

    def solve(self, gram: Tensor, tasks: Tensor, step: int) -> Tensor:
        """(M,) > 0."""
        norms, unit = cosines(gram)
        if self.alpha == 0.0:
            return torch.full_like(norms, 1.0 / len(norms))
        power = 1.0 / self.alpha
        # In units of the longest gradient, whose scale s changes w by s^(−2α / (1+α)).
        longest = norms.max()
        short = norms / longest
        solved = equilibrium(unit, short ** (power - 1.0), power) / short
        return solved * longest ** (-2.0 / (1.0 + power))
