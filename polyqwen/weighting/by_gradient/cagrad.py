"""Conflict-averse gradient descent: help the worst-off task, near the mean gradient."""

from typing import Unpack

import torch
from torch import Tensor

from polyqwen.weighting.by_gradient.base import GradientArguments, GradientWeighting
from polyqwen.weighting.by_gradient.solvers import shortest


class CAGrad(GradientWeighting):
    """``d = argmax min_t g_t · d`` within ``‖d − g_0‖ ≤ c ‖g_0‖``, g_0 the mean gradient.

    Its dual is ``w = argmin g_w · g_0 + c ‖g_0‖ ‖g_w‖`` over the simplex, and ``d = g_0 + c ‖g_0‖ /
    ‖g_w‖ · g_w`` (Liu et al., "Conflict-Averse Gradient Descent for Multi-task Learning", 2021,
    arXiv:2110.14048). c = 0 is the mean, c → ∞ the direction of `MGDA`; for c < 1 it converges to a
    minimum of the mean loss, and ``g_0 · d > 0``.

    For a given ``λ = c ‖g_0‖ / ‖g_w‖`` the dual's w is the shortest convex combination of the
    gradients ``g_t + g_0 / λ``; λ is then found by a bracketed search whose guesses are exact as
    soon as the tasks with w_t > 0 are the right ones.

    Deviation: Algorithm 1's scale; the authors' code further divides by 1 + c² (their toy by
    1 + c). With "sum_to_T" that makes no difference.

    Degenerate: opposite gradients of equal length (g_0 = 0), the mean; the smallest λ where d is
    not unique.

    Args:
        c: radius, >= 0; the paper takes .4 or .5.
        shared: arguments of `GradientWeighting`.
    """

    def __init__(self, *, c: float = 0.4, **shared: Unpack[GradientArguments]) -> None:
        super().__init__(**shared)
        self.check(0.0 <= c < float("inf"), "c", c, ">= 0, e.g. 0.4")
        self.c = c

    def solve(self, gram: Tensor, tasks: Tensor, step: int) -> Tensor:
        """(M,), summing to 1 + λ."""
        mean = torch.full_like(gram[0], 1.0 / len(gram))
        longest = float(gram.diagonal().max())
        gram = gram / longest
        to_mean = gram @ mean  # (M,), g_t · g_0
        radius = self.c * max(float(mean @ to_mean), 0.0) ** 0.5
        if radius <= 1e-9 * self.c or self.c == 0.0:
            return mean
        low, high = radius, 1e9  # λ: ‖g_w‖ is 1 at most; below 1e-9 of the radius it is 0
        factor = min(max(self.c, low), high)
        for _ in range(100):
            weights, length = self._at(gram, to_mean, factor)
            if factor * length < radius and length > 1e-9 * radius:
                low = factor
            else:
                high = factor
            guess = self._guess(gram, to_mean, weights > 0.0, radius)
            if abs(guess / factor - 1.0) < 1e-13 or high / low - 1.0 < 1e-13:
                break
            factor = guess if low < guess < high else (low * high) ** 0.5
        return mean + factor * weights

    @staticmethod
    def _at(gram: Tensor, to_mean: Tensor, factor: float) -> tuple[Tensor, float]:
        """The dual's w for one λ, and ‖g_w‖."""
        inner = to_mean / factor
        moved = gram + inner[:, None] + inner[None, :] + to_mean.mean() / factor**2
        weights = shortest(moved)
        return weights, float((weights @ gram @ weights).clamp_min(0.0)) ** 0.5

    @staticmethod
    def _guess(gram: Tensor, to_mean: Tensor, positive: Tensor, radius: float) -> float:
        """λ if exactly these tasks had w_t > 0; NaN if that cannot be."""
        inner = positive.nonzero().flatten()
        inverse = torch.linalg.pinv(gram[inner][:, inner], hermitian=True)
        sums, h = inverse.sum(1), to_mean[inner]
        one_one, one_h, h_h = float(sums.sum()), float(sums @ h), float(h @ inverse @ h)
        square = one_h**2 - one_one * (h_h - radius**2)
        # From G w / μ = ν 1 − h on these tasks, Σ w = 1 and ‖g_w‖ = μ · radius, where λ = 1 / μ
        # and ν is the larger root of one_one ν² − 2 one_h ν + h_h = radius²:
        return square**0.5 if square > 0.0 else float("nan")
