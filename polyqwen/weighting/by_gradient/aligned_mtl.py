"""Aligned-MTL: gradients made orthogonal and equally long."""

from typing import Literal, Unpack

import torch
from torch import Tensor

from polyqwen.weighting.by_gradient.base import GradientArguments, GradientWeighting


class AlignedMTL(GradientWeighting):
    """The mean of the nearest orthogonal gradients: ``w = √s · V Λ^(−½) Vᵀ 1/T``, G = V Λ Vᵀ.

    Senushkin et al., "Independent Component Alignment for Multi-Task Learning", 2023,
    arXiv:2305.19000. The aligned gradients ``√s U Vᵀ`` are orthogonal with length √s, s an
    eigenvalue of G. Promises ``g_0 · d ≥ 0`` for the mean g_0; a single task can lose (``g_t · d =
    √s (G^½ 1/T)_t``). Weights can be negative.

    Eigenvalues below T · 2.2e-16 of the largest are rounding and left out: next to a gradient 10⁷
    times longer a task has hardly any weight. Deviation: equal preferences, 1/T.

    Degenerate: equal gradients share; where nothing of the preferences is left (opposite gradients
    of equal length), equal weights, for which d = 0.

    Args:
        scale: which eigenvalue is s: "min" (paper), "median" or "mean".
        shared: arguments of `GradientWeighting`.
    """

    def __init__(
        self,
        *,
        scale: Literal["min", "median", "mean"] = "min",
        **shared: Unpack[GradientArguments],
    ) -> None:
        super().__init__(**shared)
        self.check(scale in ("min", "median", "mean"), "scale", scale, "'min', 'median' or 'mean'")
        self.scale = scale

    def solve(self, gram: Tensor, tasks: Tensor, step: int) -> Tensor:
        """(M,)."""
        values, vectors = torch.linalg.eigh(gram)  # ascending
        kept = values > values[-1] * len(values) * torch.finfo(values.dtype).eps
        values, vectors = values[kept], vectors[:, kept]
        scales = {"min": values[0], "median": values.median(), "mean": values.mean()}
        wanted = vectors.mean(0)  # (R,), the preferences in the eigenvectors' terms
        if float(wanted.abs().max()) < 1e-6:  # gradients come in float32
            return torch.full_like(gram[0], 1.0 / len(gram))
        return vectors @ ((scales[self.scale] / values).sqrt() * wanted)
