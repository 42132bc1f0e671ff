"""Random weights."""

from collections.abc import Mapping

import torch
from torch import Tensor

from polyqwen.weighting.base import Weighting
from polyqwen.weighting.common import step_generator
from polyqwen.weighting.statistics import Decision, Statistics


class RandomWeighting(Weighting):
    """New weights at every step, ``λ = T · softmax(x)`` with x ~ N(0, 1) for each task.

    Random loss weighting (Lin et al., 2022, arXiv 2111.10603), the control that a strategy must
    beat. What is drawn depends on the seed and the step alone: all ranks and a resumed run agree.

    Args:
        static: task -> weight; only the order of tasks matters.
        seed: of the draws, >= 0.
        eval_steps: optimizer steps between draws, >= 1.
    """

    in_step = True
    uses_static = False

    def __init__(self, static: Mapping[str, float], seed: int = 0, eval_steps: int = 1) -> None:
        super().__init__(static, eval_steps)
        self.seed = seed
        self.base.fill_(1.0)

    def _next(self, statistics: Statistics, old: Tensor) -> Decision:
        generator = step_generator(self.seed, statistics.step)
        drawn = torch.randn(len(old), generator=generator, dtype=torch.float64).softmax(0)
        return Decision(self.scaled(drawn, statistics.active, old), "random weights")
