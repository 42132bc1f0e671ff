"""Weights by homoscedastic uncertainty."""

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from polyqwen.weighting.adam import AdamRule
from polyqwen.weighting.base import Weighting
from polyqwen.weighting.common import check
from polyqwen.weighting.scaling import check_normalize, scaled
from polyqwen.weighting.statistics import Decision, Statistics

VARIANTS = ("kendall", "positive")


class UncertaintyWeighting(Weighting):
    """One learned scalar per task, its noise; noisy tasks count less.

    "kendall" (Kendall, Gal and Cipolla, 2018, arXiv 1705.07115): minimises
    ``Σ_t ½ exp(−s_t) l_t + ½ s_t``, so ``λ_t = ½ exp(−s_t)``, with the optimum ``1 / (2 l_t)``.
    "positive" (Liebel and Körner, 2018, arXiv 1805.06334): minimises
    ``Σ_t l_t / (2 c_t²) + ln(1 + c_t²)``, whose second term cannot become negative.

    The scalars learn from each step's losses after the step, as they would beside the model's own
    parameters, but by their own Adam and without weight decay.

    Args:
        static: task -> weight; only the order of tasks matters.
        variant: "kendall" or "positive".
        learning_rate: of the scalars, > 0.
        normalize: "sum_to_T", or "none" for the paper's own scale.
        eval_steps: optimizer steps between updates, >= 1.
    """

    needs_bounds: ClassVar[bool] = True

    scalars: Tensor  # (T,): s, or c

    def __init__(
        self,
        static: Mapping[str, float],
        variant: str = "kendall",
        learning_rate: float = 0.025,
        normalize: str = "sum_to_T",
        eval_steps: int = 1,
    ) -> None:
        super().__init__(static, eval_steps)
        check(variant in VARIANTS, "variant", variant, f"one of {', '.join(VARIANTS)}")
        check_normalize(normalize)
        self.variant, self.normalize = variant, normalize
        self.rule = AdamRule(len(self.tasks), learning_rate)
        start = 0.0 if variant == "kendall" else 1.0
        self.register_buffer("scalars", torch.full_like(self.base, start))
        everything = torch.ones_like(self.base, dtype=torch.bool)
        self.base.copy_(scaled(self._weights(self.scalars), everything, self.base, normalize))

    def _weights(self, scalars: Tensor) -> Tensor:
        return 0.5 * torch.exp(-scalars) if self.variant == "kendall" else 0.5 / scalars**2

    def _gradient(self, scalars: Tensor, loss: Tensor) -> Tensor:
        if self.variant == "kendall":
            return 0.5 - 0.5 * torch.exp(-scalars) * loss
        return 2 * scalars / (1 + scalars**2) - loss / scalars**3

    def _next(self, statistics: Statistics, old: Tensor) -> Decision:
        active, scalars = statistics.active, self.scalars.cpu()
        gradient = self._gradient(scalars, self._excess(statistics))
        scalars = self.rule.step(scalars, gradient, active)
        if self.variant == "positive":
            scalars = scalars.clamp_min(1e-3)
        self.scalars.copy_(scalars)
        weights = scaled(self._weights(scalars), active, old, self.normalize)
        return Decision(weights, f"uncertainty, {self.variant}", causes={"scalar": scalars})
