"""Equal weights."""

import torch
from torch import Tensor

from polyqwen.weighting.base import Weighting
from polyqwen.weighting.statistics import Decision, Statistics


class EqualWeighting(Weighting):
    """All tasks alike, ``λ_t = 1``, whatever the tasks' static weights: the plain sum of losses.

    Args:
        static: task -> weight; only the order of tasks matters.
        eval_steps: optimizer steps between reports, >= 1.
    """

    uses_static = False

    def __init__(self, static: dict[str, float], eval_steps: int = 100) -> None:
        super().__init__(static, eval_steps)
        self.base.fill_(1.0)

    def _next(self, statistics: Statistics, old: Tensor) -> Decision:
        return Decision(torch.ones_like(old), "equal weights")
