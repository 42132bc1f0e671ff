"""Gradient vaccine: gradients are bent towards the cosines they usually have."""

from typing import Unpack

import torch
from torch import Tensor

from polyqwen.weighting.by_gradient.base import GradientArguments, GradientWeighting, cosines
from polyqwen.weighting.common import step_generator

_LARGEST = 1.0 - 1e-6  # a usual cosine of ±1 could only be reached by an endless step


class GradVac(GradientWeighting):
    """Each pair of gradients is brought to at least its usual cosine: ``d = Σ_i g_i'``.

    For all j ≠ i in random order, φ the cosine of the running g_i' and g_j, φ̂ its moving average:
    where φ < φ̂, ``g_i' += ‖g_i'‖ (φ̂ √(1−φ²) − φ √(1−φ̂²)) / (‖g_j‖ √(1−φ̂²)) · g_j``, which makes
    the cosine φ̂; then ``φ̂ ← (1−β) φ̂ + β φ`` (Wang et al., "Gradient Vaccine", 2021,
    arXiv:2010.05874). φ̂ starts at 0: the first step is PCGrad's. Weights are ≥ 1.

    As in `PCGrad` the order comes from seed and step. Deviations: φ̂ is kept within ±(1 − 1e-6);
    one φ̂ per pair of tasks for all parameters together ("whole model").

    Degenerate: opposite gradients on the first step, d = 0; equal ones keep weight 1 each.

    Args:
        beta: how fast φ̂ moves, in [0, 1]; common libraries take .5.
        seed: of the orders, >= 0.
        shared: arguments of `GradientWeighting`.
    """

    usual: Tensor  # (T, T), φ̂ of g_i' (row) and g_j

    def __init__(
        self, *, beta: float = 0.01, seed: int = 0, **shared: Unpack[GradientArguments]
    ) -> None:
        super().__init__(**shared)
        self.check(0.0 <= beta <= 1.0, "beta", beta, "in [0, 1]")
        self.check(seed >= 0, "seed", seed, ">= 0")
        self.beta, self.seed = beta, seed
        self.register_buffer("usual", self.static.new_zeros(len(self.tasks), len(self.tasks)))

    def solve(self, gram: Tensor, tasks: Tensor, step: int) -> Tensor:
        """(M,) sums of the coefficients of all bent gradients; moves φ̂ of the tasks present."""
        generator = step_generator(self.seed, step)
        norms, unit = cosines(gram)
        usual = self.usual.cpu()[tasks][:, tasks]
        own = torch.eye(len(tasks), dtype=gram.dtype)  # in units of ‖g_t‖: g_i' = ‖g_i‖ Σ own u_t
        for i in range(len(tasks)):
            for k in torch.randperm(len(tasks) - 1, generator=generator).tolist():
                j = k + (k >= i)  # all but i
                own[i, j] += self._bend(unit, own[i], usual, i, j)
        rows = self.usual.cpu().clone()
        rows[tasks[:, None], tasks[None, :]] = usual
        self.usual.copy_(rows)
        return (own * norms[:, None]).sum(0) / norms

    def _bend(self, unit: Tensor, own: Tensor, usual: Tensor, i: int, j: int) -> float:
        """How much of u_j to add to g_i'; moves φ̂_ij."""
        inner = unit @ own
        length = float((own @ inner).clamp_min(0.0).sqrt())
        cosine = max(-1.0, min(1.0, float(inner[j]) / length)) if length > 1e-12 else 0.0
        aim = max(-_LARGEST, min(_LARGEST, float(usual[i, j])))
        usual[i, j] += self.beta * (cosine - float(usual[i, j]))
        if cosine >= aim:
            return 0.0
        return length * (aim * (1.0 - cosine**2) ** 0.5 / (1.0 - aim**2) ** 0.5 - cosine)
