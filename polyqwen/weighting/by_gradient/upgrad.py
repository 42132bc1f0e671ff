"""UPGrad: the mean of the gradients, each projected onto the cone that harms no task."""

import torch
from torch import Tensor

from polyqwen.weighting.by_gradient.base import GradientWeighting, cosines
from polyqwen.weighting.by_gradient.solvers import nonnegative_minimum


class UPGrad(GradientWeighting):
    """``d = (1/T) Σ_i π(g_i)``, π the projection onto the cone ``{d : g_t · d ≥ 0 for all t}``.

    ``π(g_i) = Σ_t v_t g_t`` with ``v = argmin vᵀ G v, v ≥ e_i`` (Quinton and Rey, "Jacobian Descent
    for Multi-Objective Optimization", 2024, arXiv:2406.16232). Promises ``g_t · d ≥ 0`` for all
    tasks, and that a task's part grows in proportion to its gradient. Two conflicting tasks: half
    of what `PCGrad` gives; no conflicts: the mean.

    Deviation: solved exactly on the cosines, without the 1e-4 on the diagonal that common
    implementations add (percents of d where norms differ much).

    Degenerate: opposite gradients, d = 0; equal ones share.
    """

    def solve(self, gram: Tensor, tasks: Tensor, step: int) -> Tensor:
        """(M,) >= 1 / M."""
        norms, unit = cosines(gram)
        parts = torch.eye(len(norms), dtype=gram.dtype)
        for i in range(len(norms)):  # u_i + Σ x_t u_t, x ≥ 0, as short as can be
            parts[i] += nonnegative_minimum(unit, -unit[i])
        return (parts * norms[:, None]).mean(0) / norms
