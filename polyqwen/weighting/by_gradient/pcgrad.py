"""Projecting conflicting gradients."""

from typing import Unpack

import torch
from torch import Tensor

from polyqwen.weighting.by_gradient.base import GradientArguments, GradientWeighting
from polyqwen.weighting.common import step_generator


class PCGrad(GradientWeighting):
    """Each gradient loses its part against every other: ``d = Σ_i g_i'``.

    ``g_i' ← g_i' − min(0, g_i' · g_j) / ‖g_j‖² · g_j`` for all j ≠ i in random order, starting from
    g_i (Yu et al., "Gradient Surgery for Multi-Task Learning", 2020, arXiv:2001.06782). As weights:
    ``w = Σ_i c_i`` with ``g_i' = Σ_t c_it g_t``; w ≥ 1. With two tasks ``g_t · d ≥ 0`` holds; with
    more it need not, and the result depends on the order.

    The order is drawn from ``seed`` and the step alone: the same on all ranks and after a resume.
    Deviation: "sum_to_T" turns the paper's sum into a mean of sorts, so that the learning rate
    keeps its meaning.

    Degenerate: opposite gradients, d = 0; without conflicts all weights are 1.

    Args:
        orders: orders to average over, >= 1; the paper has one.
        seed: of the orders, >= 0.
        shared: arguments of `GradientWeighting`.
    """

    def __init__(
        self, *, orders: int = 1, seed: int = 0, **shared: Unpack[GradientArguments]
    ) -> None:
        super().__init__(**shared)
        self.check(orders >= 1, "orders", orders, ">= 1")
        self.check(seed >= 0, "seed", seed, ">= 0")
        self.orders, self.seed = orders, seed

    def solve(self, gram: Tensor, tasks: Tensor, step: int) -> Tensor:
        """(M,) sums of the coefficients of all projected gradients."""
        generator = step_generator(self.seed, step)
        weights = torch.zeros_like(gram[0])
        for _ in range(self.orders):
            for i in range(len(gram)):
                weights += self._projected(gram, i, generator)
        return weights / self.orders

    def _projected(self, gram: Tensor, i: int, generator: torch.Generator) -> Tensor:
        """(M,) coefficients of g_i'."""
        own = torch.zeros_like(gram[0])
        own[i] = 1.0
        for j in torch.randperm(len(gram), generator=generator).tolist():
            inner = float(gram[j] @ own)
            if j != i and inner < 0.0:
                own[j] -= inner / float(gram[j, j])
        return own
