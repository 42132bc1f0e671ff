"""FairGrad: alpha-fair progress of the tasks."""

from collections.abc import Mapping

import torch
from torch import Tensor

from polyqwen.weighting.by_gradient.base import GradientWeighting, cosines
from polyqwen.weighting.by_gradient.equilibrium import equilibrium
from polyqwen.weighting.common import check
from polyqwen.weighting.gram import Gram


class FairGrad(GradientWeighting):
    """Maximises ``Σ_t (g_t · d)^(1−α) / (1−α)`` in a ball: ``G w = w^(−1/α)``, w > 0.

    Ban and Ji, "Fair Resource Allocation in Multi-Task Learning", 2024, arXiv:2402.15638. α = 0 is
    the mean, α = 1 is `NashMTL`, α → ∞ helps the worst-off task. Promises ``g_t · d = w_t^(−1/α) >
    0``; for α ≠ 1 the direction depends on the losses' scales.

    Deviations: solved to rounding by Newton's method in place of a least-squares search from equal
    weights. Degenerate: as `NashMTL`.

    Args:
        static: see `GradientWeighting`.
        gram: likewise.
        alpha: fairness, 0 or in [0.05, 100].
        normalize: see `GradientWeighting`.
        eval_steps: likewise.
    """

    def __init__(
        self,
        static: Mapping[str, float],
        gram: Gram,
        alpha: float = 1.0,
        normalize: str = "sum_to_T",
        eval_steps: int = 1,
    ) -> None:
        super().__init__(static, gram, normalize, eval_steps)
        check(alpha == 0.0 or 0.05 <= alpha <= 100.0, "alpha", alpha, "0 or in [0.05, 100]")
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
