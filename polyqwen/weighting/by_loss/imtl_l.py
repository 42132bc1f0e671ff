"""Impartial weights by loss."""

from typing import Unpack

import torch
from torch import Tensor

from polyqwen.weighting.adam import AdamRule
from polyqwen.weighting.normalized import NormalizedArguments, NormalizedWeighting
from polyqwen.weighting.statistics import Decision, Statistics


class ImpartialLossWeighting(NormalizedWeighting):
    """Learned scales that bring all losses to the same size, IMTL-L (Liu et al., ICLR 2021).

    Minimises ``Σ_t exp(s_t) l_t − s_t`` in s, so ``λ_t = exp(s_t)``, with the optimum ``1 / l_t``:
    that of `UncertaintyWeighting` but for a factor. The scalars learn from each step's losses after
    the step, by their own Adam.

    Args:
        learning_rate: of the scalars, > 0.
        normalize: "sum_to_T", or "none" for the paper's own scale.
        shared: the other arguments of `NormalizedWeighting`.
    """

    needs_bounds = True
    uses_static = False

    scales: Tensor  # (T,)

    def __init__(
        self, *, learning_rate: float = 0.025, **shared: Unpack[NormalizedArguments]
    ) -> None:
        super().__init__(**shared)
        self.rule = AdamRule(len(self.tasks), learning_rate)
        self.base.fill_(1.0)
        self.register_buffer("scales", torch.zeros_like(self.base))

    def _next(self, statistics: Statistics, old: Tensor) -> Decision:
        active, scales = statistics.active, self.scales.cpu()
        gradient = scales.exp() * self._excess(statistics.loss) - 1.0
        scales = self.rule.step(scales, gradient, active)
        self.scales.copy_(scales)
        weights = self.scaled(scales.exp(), active, old)
        return Decision(weights, "learned scales", causes={"scale": scales})
