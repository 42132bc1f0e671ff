"""Weights by homoscedastic uncertainty."""

from typing import Unpack

import torch
from torch import Tensor

from polyqwen.weighting.adam import AdamRule
from polyqwen.weighting.normalized import NormalizedArguments, NormalizedWeighting
from polyqwen.weighting.statistics import Decision, Statistics

VARIANTS = ("kendall", "positive")


class UncertaintyWeighting(NormalizedWeighting):
    """One learned scalar per task, its noise; noisy tasks count less.

    "kendall" (Kendall, Gal and Cipolla, 2018, arXiv 1705.07115): minimises
    ``Σ_t ½ exp(−s_t) l_t + ½ s_t``, so ``λ_t = ½ exp(−s_t)``, with the optimum ``1 / (2 l_t)``.
    "positive" (Liebel and Körner, 2018, arXiv 1805.06334): minimises
    ``Σ_t l_t / (2 c_t²) + ln(1 + c_t²)``, whose second term cannot become negative.

    The scalars learn from each step's losses after the step, as they would beside the model's own
    parameters, but by their own Adam and without weight decay.

    Args:
        variant: "kendall" or "positive".
        learning_rate: of the scalars, > 0.
        normalize: "sum_to_T", or "none" for the paper's own scale.
        shared: the other arguments of `NormalizedWeighting`.
    """

    needs_bounds = True
    uses_static = False

    scalars: Tensor  # (T,): s, or c

    def __init__(
        self,
        *,
        variant: str = "kendall",
        learning_rate: float = 0.025,
        **shared: Unpack[NormalizedArguments],
    ) -> None:
        super().__init__(**shared)
        self.check(variant in VARIANTS, "variant", variant, f"one of {', '.join(VARIANTS)}")
        self.variant = variant
        self.rule = AdamRule(len(self.tasks), learning_rate)
        start = 0.0 if variant == "kendall" else 1.0
        self.register_buffer("scalars", torch.full_like(self.base, start))
        everything = torch.ones_like(self.base, dtype=torch.bool)
        self.base.copy_(self.scaled(self._weights(self.scalars), everything, self.base))

    def _weights(self, scalars: Tensor) -> Tensor:
        return 0.5 * torch.exp(-scalars) if self.variant == "kendall" else 0.5 / scalars**2

    def _gradient(self, scalars: Tensor, loss: Tensor) -> Tensor:
        if self.variant == "kendall":
            return 0.5 - 0.5 * torch.exp(-scalars) * loss
        return 2 * scalars / (1 + scalars**2) - loss / scalars**3

    def _next(self, statistics: Statistics, old: Tensor) -> Decision:
        active, scalars = statistics.active, self.scalars.cpu()
        gradient = self._gradient(scalars, self._excess(statistics.loss))
        scalars = self.rule.step(scalars, gradient, active)
        if self.variant == "positive":
            scalars = scalars.clamp_min(1e-3)
        self.scalars.copy_(scalars)
        weights = self.scaled(self._weights(scalars), active, old)
        return Decision(weights, f"uncertainty, {self.variant}", causes={"scalar": scalars})
