"""Static weights."""

from torch import Tensor

from polyqwen.weighting.base import Weighting, Window


class StaticWeighting(Weighting):
    """Constant task weights, ``λ_t = static_t``.

    Losses are collected and reported all the same, so that runs with other strategies compare.

    Args:
        static: task -> weight, > 0.
    """

    def _next(self, step: int, window: Window, old: Tensor) -> tuple[Tensor, str, dict[str, str]]:
        return old, "static weights", {}
