"""Static weights."""

from torch import Tensor

from polyqwen.weighting.base import Weighting
from polyqwen.weighting.statistics import Decision, Statistics


class StaticWeighting(Weighting):
    """Constant task weights, ``λ_t = static_t``.

    Losses are collected and reported all the same, so that runs with other strategies compare.

    Args:
        static: task -> weight, > 0.
    """

    def _next(self, statistics: Statistics, old: Tensor) -> Decision:
        return Decision(old, "static weights")
