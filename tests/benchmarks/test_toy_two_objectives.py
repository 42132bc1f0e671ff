"""The published toy: its Pareto set, the checks of its ends, the first steps of every method."""

import numpy as np
import pytest
import torch

from benchmarks import toy_two_objectives as toy
from benchmarks.toy_problem import PROBLEMS, distance, objectives, optimum, pareto_set


def test_the_pareto_set_is_where_gradients_are_opposite() -> None:
    front = pareto_set(15)
    x = torch.from_numpy(front).requires_grad_(True)
    losses = objectives(x, 1.0)
    first, second = (
        torch.autograd.grad(losses[:, t].sum(), x, retain_graph=True)[0] for t in (0, 1)
    )
    share = (7 + x.detach()[:, :1]) / 14
    assert (share * first + (1 - share) * second).abs().max() < 1e-12
    assert first[1:-1].norm(dim=1).min() > 0.15  # neither is zero by itself
    assert front[7].tolist() == pytest.approx([0.0, -8.3551], abs=1e-4)
    assert optimum("cagrad_toy").tolist() == pytest.approx(front[7].tolist(), abs=1e-9)
    assert distance(np.array([0.0, 0.0]), front) == pytest.approx(8.3551, abs=1e-4)


def test_losses_by_hand() -> None:
    x = torch.tensor([[7.0, -8.0], [0.0, 0.0], [3.0, 2.0]]).double()
    half, turn = np.tanh(4.0), np.tanh(2.0)
    expected = [
        [-20 * half, (196 / 10 - 20) * half],
        [0.0, 0.0],
        [
            np.tanh(1.0) * (np.log(5 - turn) + 6),  # |½(−3 − 7) + tanh 2|
            np.tanh(1.0) * (np.log(2 - turn) + 6),  # |½(−3 + 3) − tanh 2 + 2|
        ],
    ]
    assert torch.allclose(objectives(x, 1.0), torch.tensor(expected).double())
    assert torch.allclose(objectives(x, 0.1)[:, 0], objectives(x, 1.0)[:, 0] * 0.1)


def test_the_first_steps_under_a_dominant_objective() -> None:
    """From (9, −1) the larger objective drags the average away; scale-aware methods go down."""
    start = (9.0, -1.0)
    front = pareto_set()
    runs = tuple(("nash_mtl_toy", method, start) for method in toy.METHODS)
    paths = {path.method: path.points for path in toy.walk(runs, most=2000)}
    away = {method: distance(points[-1], front) for method, points in paths.items()}
    before = distance(np.array(start), front)
    assert all(points.shape == (21, 2) for points in paths.values())
    assert away["average"] > before and away["cagrad"] > before
    for method in ("gradnorm", "mgda", "pcgrad", "nash_mtl", "imtl_g"):
        assert away[method] < 0.75 * before, method
    assert away["nash_mtl"] == min(away.values())


def test_the_check_of_ends_finds_strays() -> None:
    start = PROBLEMS["cagrad_toy"].starts[0]

    def ending(method: str, end: tuple[float, float]) -> dict[str, object]:
        points = np.array([start, (0.0, -8.36), end, end])
        return toy.measured(toy.Path2D("cagrad_toy", method, start, points))

    toy.check(ending("mgda", (3.0, -8.37)))
    toy.check(ending("cagrad", (0.0, -8.36)))
    toy.check(ending("average", (-5.0, 2.0)))
    assert ending("mgda", (3.0, -8.37))["arrived_at_step"] == 100
    assert ending("mgda", (3.0, -8.0))["arrived_at_step"] is None
    for method, end in (
        ("mgda", (3.0, -8.0)),
        ("cagrad", (3.0, -8.37)),  # in the Pareto set, but not the least mean loss
        ("average", (0.0, -8.36)),  # known to get stuck
    ):
        with pytest.raises(AssertionError):
            toy.check(ending(method, end))
