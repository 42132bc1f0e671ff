"""Two published two-objective problems: which strategies reach the Pareto set, and from where.

    python benchmarks/toy_two_objectives.py [--steps-divisor 1] [--to benchmarks/results]

The functions are those of CAGrad (Liu et al., 2021, arXiv:2110.14048, appendix): above x_2 = 0 two
narrow curved valleys of logarithms, below it two shallow bowls centred at (7, −8) and (−7, −8).
Nash-MTL (Navon et al., 2022, arXiv:2202.01017) takes the same with the first objective times 0.1,
and other starts. Optimizer as there: Adam, learning rate 1e-3.

Strategies get a Gram matrix and give weights, as in training, on their papers' own scale. Every end
is held against `EXPECTED`. Writes results as JSON and draws the paths.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from polyqwen.weighting.by_gradient.base import GradientWeighting
from polyqwen.weighting.by_gradient.cagrad import CAGrad
from polyqwen.weighting.by_gradient.gradnorm import GradNorm
from polyqwen.weighting.by_gradient.imtl_g import IMTLG
from polyqwen.weighting.by_gradient.mgda import MGDA
from polyqwen.weighting.by_gradient.nash_mtl import NashMTL
from polyqwen.weighting.by_gradient.pcgrad import PCGrad
from polyqwen.weighting.gram import FullParameterGram

METHODS = ("average", "gradnorm", "mgda", "pcgrad", "cagrad", "nash_mtl", "imtl_g")
TASKS = ("first", "second")
LOWEST = 5e-6  # of the logarithms' arguments
LEARNING_RATE, EVERY = 1e-3, 100  # steps between kept points of a path


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
    """Both losses at points x (N, 2), with the first one's factor (N,) or a number: (N, 2)."""
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


class Ready(FullParameterGram):
    """Hands over a Gram matrix that the loop below has computed for all points at once."""

    matrix: Tensor | None = None

    def take(self) -> Tensor | None:
        """The matrix as it was given."""
        return self.matrix


class Walker:
    """One strategy at one start: losses and Gram matrix in, weights out."""

    def __init__(self, method: str, scale: float) -> None:
        static, self.gram = dict.fromkeys(TASKS, 1.0), Ready()
        self.strategy: GradientWeighting | GradNorm | None = None
        if method == "gradnorm":
            self.strategy = GradNorm(static, self.gram)
            self.strategy.bind({"first": -20.0 * scale, "second": -20.0})
        elif method != "average":
            kinds = {"mgda": MGDA, "pcgrad": PCGrad, "nash_mtl": NashMTL, "imtl_g": IMTLG}
            self.strategy = (
                CAGrad(static, self.gram, c=0.5)
                if method == "cagrad"
                else kinds[method](static, self.gram)
            )
        self.tasks, self.rows = torch.arange(2), torch.ones(2)

    def weights(self, losses: Tensor, gram: Tensor, step: int) -> Tensor:
        """Weights of the two losses, (2,), for a step with these statistics."""
        if isinstance(self.strategy, GradientWeighting):
            return self.strategy.solve(gram, self.tasks, step)
        if self.strategy is None:
            return torch.full_like(losses, 0.5)
        weights = self.strategy.base.clone()  # learned from the steps before
        self.gram.matrix = gram
        self.strategy.observe(losses, self.rows)
        self.strategy.update(step)
        return weights


class Path2D(NamedTuple):
    """Where one strategy went from one start: every 100th point, (K, 2)."""

    problem: str
    method: str
    start: tuple[float, float]
    points: np.ndarray


def walk(methods: tuple[str, ...] = METHODS, divisor: int = 1) -> list[Path2D]:
    """All strategies from all starts of both problems, side by side: one Adam for all points."""
    runs = [(p, m, s) for p in PROBLEMS for m in methods for s in PROBLEMS[p].starts]
    scale = torch.tensor([PROBLEMS[p].scale for p, _, _ in runs], dtype=torch.float64)
    steps = [PROBLEMS[p].steps // divisor for p, _, _ in runs]
    walkers = [Walker(m, PROBLEMS[p].scale) for p, m, _ in runs]
    x = torch.tensor([s for _, _, s in runs], dtype=torch.float64, requires_grad=True)
    adam = torch.optim.Adam([x], lr=LEARNING_RATE)
    kept: list[list[np.ndarray]] = [[] for _ in runs]
    for step in range(max(steps)):
        losses = objectives(x, scale)
        both = [torch.autograd.grad(losses[:, t].sum(), x, retain_graph=t == 0)[0] for t in (0, 1)]
        gradients = torch.stack(both, dim=1)  # (N, 2 tasks, 2)
        grams = gradients @ gradients.mT
        weights = torch.zeros_like(losses)
        values = losses.detach()
        for i, walker in enumerate(walkers):
            if step % EVERY == 0 and step < steps[i]:
                kept[i].append(x[i].detach().numpy().copy())
            if step < steps[i]:
                weights[i] = walker.weights(values[i], grams[i], step)
            elif step == steps[i]:
                kept[i].append(x[i].detach().numpy().copy())
        x.grad = (weights.detach()[:, :, None] * gradients).sum(1)
        adam.step()
    for i in range(len(runs)):
        if steps[i] == max(steps):
            kept[i].append(x[i].detach().numpy().copy())
    return [Path2D(*run, np.stack(points)) for run, points in zip(runs, kept, strict=True)]
