"""Nash-MTL: the bargaining solution."""

import torch
from torch import Tensor

from polyqwen.weighting.by_gradient.base import GradientWeighting, cosines
from polyqwen.weighting.by_gradient.solvers import equilibrium


class NashMTL(GradientWeighting):
    """The direction that maximises ``Σ_t log(g_t · d)`` in a ball: ``G w = 1 / w``, w > 0.

    Navon et al., "Multi-Task Learning as a Bargaining Game", 2022, arXiv:2202.01017. Promises
    ``g_t · d = 1 / w_t > 0``, ‖d‖² = number of tasks, and a direction that does not change when a
    task's loss is multiplied by a constant. Two tasks: ``w_t = 1 / (‖g_t‖ √(1 + cos))``.

    Deviations: solved to rounding by Newton's method at each step, where the authors take 20 convex
    programs; no ``max_norm``, which always clips because ‖d‖ never changes ("none" gives that
    constant length, "sum_to_T" the learning rate's usual meaning).

    Degenerate: where a positive combination of gradients vanishes (opposite ones) nothing can be
    bargained for; then w is large (about 1e6 / ‖g_t‖) and d ≈ 0, which "sum_to_T" makes harmless.
    """

    def solve(self, gram: Tensor, tasks: Tensor, step: int) -> Tensor:
        """(M,) > 0."""
        norms, unit = cosines(gram)
        return equilibrium(unit, torch.ones_like(norms), 1.0) / norms
