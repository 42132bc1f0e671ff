"""Soft optimal uncertainty weights."""

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from polyqwen.weighting.base import Weighting
from polyqwen.weighting.common import check
from polyqwen.weighting.scaling import check_normalize, scaled
from polyqwen.weighting.statistics import Decision, Statistics


class SoftOptimalUncertainty(Weighting):
    """The optimum of uncertainty weighting, softened: ``λ = softmax((1 / l) / τ)`` (UW-SO).

    Kirchdorfer et al., 2024 (arXiv 2408.07985). Uncertainty weighting tends to 1 / l; put through a
    softmax it is bounded, and needs no learned scalar. The temperature must be tuned to the losses'
    size: with τ far below 1 / l the smallest loss takes everything.

    Args:
        static: task -> weight until the first step; the order of tasks.
        temperature: τ, > 0.
        normalize: "sum_to_T", or "none" for weights that sum to 1.
        eval_steps: optimizer steps between updates, >= 1.
    """

    in_step: ClassVar[bool] = True
    needs_bounds: ClassVar[bool] = True

    def __init__(
        self,
        static: Mapping[str, float],
        temperature: float = 1.0,
        normalize: str = "sum_to_T",
        eval_steps: int = 1,
    ) -> None:
        super().__init__(static, eval_steps)
        check(temperature > 0.0, "temperature", temperature, "> 0, e.g. 1")
        check_normalize(normalize)
        self.temperature, self.normalize = temperature, normalize

    def _next(self, statistics: Statistics, old: Tensor) -> Decision:
        active = statistics.active
        inverse = torch.where(active, 1.0 / self._excess(statistics), -torch.inf)
        soft = (inverse / self.temperature).softmax(0) if active.any() else old
        return Decision(scaled(soft, active, old, self.normalize), "softmax of inverse losses")
