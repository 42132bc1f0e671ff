"""Impartial weights by loss."""

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from polyqwen.weighting.adam import AdamRule
from polyqwen.weighting.base import Weighting
from polyqwen.weighting.scaling import check_normalize, scaled
from polyqwen.weighting.statistics import Decision, Statistics


class ImpartialLossWeighting(Weighting):
    """Learned scales that bring all losses to the same size, IMTL-L (Liu et al., ICLR 2021).

    Minimises ``Σ_t exp(s_t) l_t − s_t`` in s, so ``λ_t = exp(s_t)``, with the optimum ``1 / l_t``:
    that of `UncertaintyWeighting` but for a factor. The scalars learn from each step's losses after
    the step, by their own Adam.

    Args:
        static: task -> weight; only the order of tasks matters.
        learning_rate: of the scalars, > 0.
        normalize: "sum_to_T", or "none" for the paper's own scale.
        eval_steps: optimizer steps between updates, >= 1.
    """

    needs_bounds: ClassVar[bool] = True

    scales: Tensor  # (T,)

    def __init__(
        self,
        static: Mapping[str, float],
        learning_rate: float = 0.025,
        normalize: str = "sum_to_T",
        eval_steps: int = 1,
    ) -> None:
        super().__init__(static, eval_steps)
        check_normalize(normalize)
        self.normalize = normalize
        self.rule = AdamRule(len(self.tasks), learning_rate)
        self.base.fill_(1.0)
        self.register_buffer("scales", torch.zeros_like(self.base))

    def _next(self, statistics: Statistics, old: Tensor) -> Decision:
        active, scales = statistics.active, self.scales.cpu()
        gradient = scales.exp() * self._excess(statistics) - 1.0
        scales = self.rule.step(scales, gradient, active)
        self.scales.copy_(scales)
        weights = scaled(scales.exp(), active, old, self.normalize)
        return Decision(weights, "learned scales", causes={"scale": scales})
