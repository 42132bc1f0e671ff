"""IMTL-G: equal projections."""

import torch
from torch import Tensor

from polyqwen.weighting.by_gradient.base import GradientWeighting, cosines


class IMTLG(GradientWeighting):
    """The direction with equal projections on all gradients, ``g_t · d / ‖g_t‖`` alike, Σ |w| = 1.

    Liu et al., "Towards Impartial Multi-task Learning", 2021. With ``C`` the cosines, ``w_t ∝
    (C⁺ 1)_t / ‖g_t‖``; two tasks: ``w ∝ (‖g_2‖, ‖g_1‖)``. The direction does not change when a
    task's loss is multiplied by a constant. Weights can be negative.

    Deviations: weights sum to 1 in absolute value, because a sum of negative and positive ones can
    vanish or, where it is negative, turn d around; the equal projection is never negative. The
    pseudo-inverse is that of C, not of G, so that scales cannot change what counts as singular.

    Degenerate: linearly dependent gradients, least squares (equal ones share); where that gives
    nothing (opposite gradients), ``w_t ∝ 1 / ‖g_t‖``, for which d = 0.
    """

    def solve(self, gram: Tensor, tasks: Tensor, step: int) -> Tensor:
        """(M,), absolute values summing to 1."""
        norms, unit = cosines(gram)
        ones = torch.ones_like(norms)
        parts = torch.linalg.pinv(unit, rtol=1e-10, hermitian=True) @ ones
        if float(parts.abs().max()) < 1e-9:
            parts = ones
        weights = parts * (norms.min() / norms)
        return weights / weights.abs().sum()
