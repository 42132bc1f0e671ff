"""Equal weights on gradients of equal length."""

from torch import Tensor

from polyqwen.weighting.by_gradient.base import GradientWeighting


class EqualNorm(GradientWeighting):
    """Every task moves the shared parameters by the same length, ``w_t = (mean_s ‖g_s‖) / ‖g_t‖``.

    The plain baseline that methods of gradient surgery must beat: scales are levelled, directions
    are left alone.
    """

    def solve(self, gram: Tensor, tasks: Tensor, step: int) -> Tensor:
        """(M,) inverse norms, the mean norm kept."""
        norms = gram.diagonal().sqrt()
        return norms.mean() / norms
