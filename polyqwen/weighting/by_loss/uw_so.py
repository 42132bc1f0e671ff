"""Soft optimal uncertainty weights."""

from typing import Unpack

import torch
from torch import Tensor

from polyqwen.weighting.normalized import NormalizedArguments, NormalizedWeighting
from polyqwen.weighting.statistics import Decision, Statistics


class SoftOptimalUncertainty(NormalizedWeighting):
    """The optimum of uncertainty weighting, softened: ``λ = softmax((1 / l) / τ)`` (UW-SO).

    Kirchdorfer et al., 2024 (arXiv 2408.07985). Uncertainty weighting tends to 1 / l; put through a
    softmax it is bounded, and needs no learned scalar. The temperature must be tuned to the losses'
    size: with τ far below 1 / l the smallest loss takes everything.

    Args:
        temperature: τ, > 0.
        normalize: "sum_to_T", or "none" for weights that sum to 1.
        shared: the other arguments of `NormalizedWeighting`.
    """

    in_step = True
    uses_static = False
    needs_bounds = True

    def __init__(self, *, temperature: float = 1.0, **shared: Unpack[NormalizedArguments]) -> None:
        super().__init__(**shared)
        self.check(temperature > 0.0, "temperature", temperature, "> 0, e.g. 1")
        self.temperature = temperature

    def _next(self, statistics: Statistics, old: Tensor) -> Decision:
        active = statistics.active
        inverse = torch.where(active, 1.0 / self._excess(statistics.loss), -torch.inf)
        soft = (inverse / self.temperature).softmax(0) if active.any() else old
        return Decision(self.scaled(soft, active, old), "softmax of inverse losses")
