"""Which strategies reach the Pareto set of two published two-objective problems, and from where.

    python -m benchmarks.toy_two_objectives [--to DIR] [--images DIR] [--hardware WORDS]

The problem of CAGrad (Liu et al., 2021, arXiv:2110.14048), and that of Nash-MTL (Navon et al.,
2022, arXiv:2202.01017): the same with the first objective times 0.1, and other starts. Optimizer
as there: Adam, learning rate 1e-3. Strategies get losses and Gram matrix and give weights on their
papers' own scale, as in training with ``normalize=none``.

Every end is checked: within `NEAR` of the Pareto set, except where a method is known to get stuck
(`STUCK`); CAGrad on its own problem even within `NEAR` of the least mean loss. Writes the results
and a figure. About a quarter of an hour on a core of its own.
"""

import argparse
import json
import platform
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from benchmarks.toy_figure import draw
from benchmarks.toy_problem import PROBLEMS, distance, mean_loss, objectives, optimum, pareto_set
from polyqwen.weighting.by_gradient.base import GradientWeighting
from polyqwen.weighting.by_gradient.cagrad import CAGrad
from polyqwen.weighting.by_gradient.gradnorm import GradNorm
from polyqwen.weighting.by_gradient.imtl_g import IMTLG
from polyqwen.weighting.by_gradient.mgda import MGDA
from polyqwen.weighting.by_gradient.nash_mtl import NashMTL
from polyqwen.weighting.by_gradient.pcgrad import PCGrad
from polyqwen.weighting.gram import FullParameterGram, Products

METHODS = ("average", "gradnorm", "mgda", "pcgrad", "cagrad", "nash_mtl", "imtl_g")
LEARNING_RATE, EVERY = 1e-3, 100  # steps between kept points of a path
NEAR, FAR = 0.05, 1.0
STUCK = {  # after all steps these are still in the valley above, or crawling out of it
    ("cagrad_toy", "average"): {(-8.5, 7.5), (9.0, 9.0)},
    ("nash_mtl_toy", "average"): {(9.0, 9.0)},
    ("nash_mtl_toy", "pcgrad"): {(9.0, 9.0)},
    ("nash_mtl_toy", "cagrad"): {(9.0, 9.0)},
}
Run = tuple[str, str, tuple[float, float]]  # problem, method, start
RUNS: tuple[Run, ...] = tuple(
    (p, m, s) for p, problem in PROBLEMS.items() for m in METHODS for s in problem.starts
)


class Path2D(NamedTuple):
    """Where one strategy went from one start: every 100th point and the last, (K, 2)."""

    problem: str
    method: str
    start: tuple[float, float]
    points: np.ndarray


class Ready(FullParameterGram):
    """Hands over a Gram matrix that `walk` has computed for all points at once."""

    matrix: Tensor | None = None

    def take(self) -> Products | None:
        """The matrix as it was given."""
        return None if self.matrix is None else Products(self.matrix)


class Walker:
    """One strategy at one start: losses and Gram matrix in, weights out."""

    def __init__(self, method: str, scale: float) -> None:
        static, self.gram = dict.fromkeys(("first", "second"), 1.0), Ready()
        self.tasks, self.rows = torch.arange(2), torch.ones(2)
        self.learned: GradNorm | None = None
        self.solved: GradientWeighting | None = None
        if method == "gradnorm":
            self.learned = GradNorm(static=static, gram=self.gram)
            self.learned.bind({"first": -20.0 * scale, "second": -20.0})
        elif method == "cagrad":
            self.solved = CAGrad(static=static, gram=self.gram, c=0.5)
        elif method != "average":
            kinds = {"mgda": MGDA, "pcgrad": PCGrad, "nash_mtl": NashMTL, "imtl_g": IMTLG}
            self.solved = kinds[method](static=static, gram=self.gram)

    def weights(self, losses: Tensor, gram: Tensor, step: int) -> Tensor:
        """Weights of the two losses, (2,), for a step with these statistics."""
        if self.solved is not None:
            return self.solved.solve(gram, self.tasks, step)
        if self.learned is None:
            return torch.full_like(losses, 0.5)
        weights = self.learned.base.clone()  # learned from the steps before
        self.gram.matrix = gram
        self.learned.observe(losses, self.rows)
        self.learned.update(step)
        return weights


def walk(runs: tuple[Run, ...] = RUNS, most: int = 100_000) -> list[Path2D]:
    """All runs side by side, for ``most`` steps or their problem's own: one Adam for all points."""
    scale = torch.tensor([PROBLEMS[p].scale for p, _, _ in runs], dtype=torch.float64)
    steps = [min(PROBLEMS[p].steps, most) for p, _, _ in runs]
    walkers = [Walker(m, PROBLEMS[p].scale) for p, m, _ in runs]
    x = torch.tensor([s for _, _, s in runs], dtype=torch.float64, requires_grad=True)
    adam = torch.optim.Adam([x], lr=LEARNING_RATE)
    kept: list[list[np.ndarray]] = [[] for _ in runs]
    for step in range(max(steps) + 1):
        for points, last, point in zip(kept, steps, x.detach().numpy(), strict=True):
            if (step % EVERY == 0 and step < last) or step == last:
                points.append(point.copy())
        losses = objectives(x, scale)
        both = [torch.autograd.grad(losses[:, t].sum(), x, retain_graph=t == 0)[0] for t in (0, 1)]
        gradients, values = torch.stack(both, dim=1), losses.detach()  # (N, 2 tasks, 2)
        grams, weights = gradients @ gradients.mT, torch.zeros_like(values)
        for i, walker in enumerate(walkers):
            if step < steps[i]:
                weights[i] = walker.weights(values[i], grams[i], step)
        x.grad = (weights[:, :, None] * gradients).sum(1)
        adam.step()
    return [Path2D(*run, np.stack(points)) for run, points in zip(runs, kept, strict=True)]


def measured(path: Path2D) -> dict[str, Any]:
    """How a path ended, and when it had arrived for good."""
    front, end = pareto_set(), path.points[-1]
    away = [distance(point, front) for point in path.points]
    late = [i for i, d in enumerate(away) if d >= NEAR]
    arrived = None if late and late[-1] == len(away) - 1 else EVERY * (late[-1] + 1 if late else 0)
    losses = objectives(torch.from_numpy(end[None]), PROBLEMS[path.problem].scale)[0].tolist()
    return {
        "problem": path.problem,
        "method": path.method,
        "start": list(path.start),
        "end": [round(float(v), 4) for v in end],
        "losses": [round(v, 4) for v in losses],
        "to_pareto_set": round(away[-1], 4),
        "to_least_mean_loss": round(float(np.linalg.norm(end - optimum(path.problem))), 4),
        "arrived_at_step": arrived,
    }


def check(result: dict[str, Any]) -> None:
    """Asserts that a run ended where its method is known to end."""
    where = (result["problem"], result["method"])
    if tuple(result["start"]) in STUCK.get(where, ()):
        assert result["to_pareto_set"] > FAR, result
        return
    assert result["to_pareto_set"] < NEAR, result
    if where == ("cagrad_toy", "cagrad"):
        assert result["to_least_mean_loss"] < NEAR, result


def main() -> None:
    """Walks, checks, writes results and figure."""
    root = Path(__file__).parent
    parser = argparse.ArgumentParser()
    parser.add_argument("--to", type=Path, default=root / "results")
    parser.add_argument("--images", type=Path, default=root.parent / "docs" / "images")
    parser.add_argument("--hardware", default=f"{platform.machine()}, CPU")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    paths = walk()
    results = [measured(path) for path in paths]
    report = {
        "date": datetime.now(UTC).date().isoformat(),
        "hardware": arguments.hardware,
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "optimizer": f"Adam, learning rate {LEARNING_RATE}",
        "steps": {name: problem.steps for name, problem in PROBLEMS.items()},
        "near": NEAR,
        "runs": results,
    }
    arguments.to.mkdir(parents=True, exist_ok=True)
    path = arguments.to / "toy_two_objectives.json"
    path.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    arrived = [result["arrived_at_step"] is not None for result in results]
    draw(paths, arrived, mean_loss, optimum, arguments.images / "toy_two_objectives.png")
    for result in results:
        check(result)
    print(f"{sum(arrived)} of {len(arrived)} runs reached the Pareto set, as expected")


if __name__ == "__main__":
    main()
