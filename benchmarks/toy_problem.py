"""The two-objective problem of CAGrad and Nash-MTL: losses, settings, Pareto set."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

LOWEST = 5e-6  # of the logarithms' arguments


class Problem(NamedTuple):
    """One paper's setting: factor of the first objective, starts, steps."""

    scale: float
    starts: tuple[tuple[float, float], ...]
    steps: int


PROBLEMS = {
    "cagrad_toy": Problem(1.0, ((-8.5, 7.5), (-8.5, -5.0), (9.0, 9.0)), 100_000),
    "nash_mtl_toy": Problem(
        0.1, ((-8.5, 7.5), (0.0, 0.0), (9.0, 9.0), (-7.5, -0.5), (9.0, -1.0)), 50_000
    ),
}


def objectives(x: Tensor, scale: Tensor | float) -> Tensor:
    """Both losses at points x (N, 2), with the first one's factor (N,) or a number: (N, 2).

    Above x_2 = 0 two narrow curved valleys of logarithms, below it two shallow bowls centred at
    (7, −8) and (−7, −8), blended by tanh(± x_2 / 2).
    """
    a, b = x.unbind(-1)
    valleys = torch.stack(
        [0.5 * (-a - 7) + torch.tanh(b), 0.5 * (-a + 3) - torch.tanh(b) + 2], dim=-1
    )
    above = valleys.abs().clamp_min(LOWEST).log() + 6
    bowl = 0.1 * (b + 8) ** 2
    below = torch.stack([(a - 7) ** 2 + bowl, (a + 7) ** 2 + bowl], dim=-1) / 10 - 20
    half = torch.tanh(0.5 * b)[:, None]
    both = above * half.clamp_min(0) + below * (-half).clamp_min(0)
    return torch.stack([both[:, 0] * scale, both[:, 1]], dim=-1)


def mean_loss(problem: str, points: np.ndarray) -> np.ndarray:
    """Mean of both losses, (N,)."""
    return objectives(torch.from_numpy(points), PROBLEMS[problem].scale).mean(-1).numpy()


def pareto_set(count: int = 1401) -> np.ndarray:
    """Points (K, 2) between the two bowls' minima that no other point is better than.

    Where −7 ≤ x_1 ≤ 7 the gradients with respect to x_1 are opposite with shares (7 ± x_1) / 14;
    x_2, a little below −8, is where the shares' sum has no slope in x_2 either, by bisection. A
    factor of one objective does not move the set.
    """
    a = np.linspace(-7.0, 7.0, count)
    low, high = np.full(count, -9.0), np.full(count, -8.0)
    for _ in range(60):
        b = (low + high) / 2
        half = np.tanh(-b / 2)
        depth = ((7 + a) * (a - 7) ** 2 + (7 - a) * (a + 7) ** 2) / 140 + 0.01 * (b + 8) ** 2 - 20
        slope = -0.5 * (1 - half**2) * depth + half * 0.02 * (b + 8)
        low, high = np.where(slope < 0, b, low), np.where(slope < 0, high, b)
    return np.stack([a, (low + high) / 2], axis=-1)


def optimum(problem: str) -> np.ndarray:
    """Where the mean loss is least, (2,): a point of the Pareto set."""
    front = pareto_set()
    return front[mean_loss(problem, front).argmin()]


def distance(point: np.ndarray, front: np.ndarray) -> float:
    """From a point (2,) to the nearest of the Pareto set (K, 2)."""
    return float(np.linalg.norm(front - point, axis=-1).min())
