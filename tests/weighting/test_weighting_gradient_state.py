"""Weighting by gradients: degenerate gradients, state, draws and refused arguments."""

import math
from typing import Any

import pytest
import torch

from polyqwen.weighting.base import Weighting
from polyqwen.weighting.by_gradient.gradvac import GradVac
from polyqwen.weighting.by_gradient.pcgrad import PCGrad
from polyqwen.weighting.by_gradient.upgrad import UPGrad
from tests.weighting.gradient_cases import (
    BY_NAME,
    Row,
    drawn,
    make,
    make_gradnorm,
    rows_of,
    solved,
    trained,
)

# Degenerate gradients

SQRT3 = math.sqrt(3.0)
DEGENERATE = {
    "one task": [[2.0, 0.0]],
    "opposite": [[1.0, 0.0], [-1.0, 0.0]],
    "opposite, one longer": [[1.0, 0.0], [-3.0, 0.0]],
    "equal": [[1.0, 2.0], [1.0, 2.0]],
    "three equal": [[1.0, 2.0]] * 3,
    "parallel": [[1.0, 2.0], [2.0, 4.0], [1e4, 2e4]],
    "nearly parallel": [[1.0, 0.0], [1.0, 1e-9], [1.0, -2e-9]],
    "nearly opposite": [[1.0, 0.0], [-1.0, 1e-9]],
    "two equal against one": [[1.0, 0.0], [1.0, 0.0], [-1.0, 1e-3]],
    "balanced star": [[1.0, 0.0], [-0.5, SQRT3 / 2], [-0.5, -SQRT3 / 2]],
    "scales": [[1e8, 0.0, 0.0], [1.0, 1.0, 0.0], [-1e-8, 0.0, 1e-8]],
    "scales in conflict": [[1e8, 0.0], [-1e-8, 1e-9]],
    "tiny": [[1e-8, 0.0], [-1e-8, 1e-8]],
    "huge": [[1e8, 0.0], [-1e8, 1e8]],
    "many in a plane": [[math.cos(i), math.sin(i)] for i in range(8)],
}
SYMMETRIC = ("one task", "opposite", "equal", "three equal", "balanced star")


@rows_of()
@pytest.mark.parametrize("case", DEGENERATE)
def test_degenerate_gradients(row: Row, case: str) -> None:
    gradients = torch.tensor(DEGENERATE[case]).double()
    tasks = len(gradients)
    strategy = make(row, tasks)
    for step in range(3):  # again and again, for those with a state
        trained(strategy, gradients, [1.0] * tasks, step)
        weights = strategy.base
        assert torch.isfinite(weights).all()
        assert float(weights.abs().sum()) == pytest.approx(tasks)
    direction = weights @ gradients
    if case == "opposite, one longer" and row.harmless == "yes":
        assert direction.norm() < 1e-5
    if case in SYMMETRIC and (row.any_order or tasks < 3):
        assert weights.tolist() == pytest.approx([1.0] * tasks, abs=1e-6)
    strategy = make(row, tasks, normalize="none")
    trained(strategy, gradients, [1.0] * tasks, 0)
    assert torch.isfinite(strategy.base).all()


@rows_of()
def test_tasks_without_rows_or_gradient_take_no_part(row: Row) -> None:
    strategy = make(row, 4)
    gradients = drawn(5, 4)
    gradients[2] = 0.0
    update = trained(strategy, gradients, [1.0, math.nan, 1.0, 1.0], 0)
    weights = strategy.base.tolist()
    assert weights[1] == weights[2] == 1.0 and update.notes == {"task2": "no gradient"}
    pair = make(row, 2)
    trained(pair, gradients[[0, 3]], [1.0, 1.0], 0)
    assert [weights[0], weights[3]] == pytest.approx(pair.base.tolist())
    assert pair.base.tolist() != pytest.approx([1.0, 1.0]) or row.make in (PCGrad, GradVac, UPGrad)
    assert set(update.causes["gradient_norm"]) == {"task0", "task3"}


@rows_of()
def test_a_gradient_that_is_not_finite_keeps_the_weights(row: Row) -> None:
    strategy = make(row, 3)
    trained(strategy, drawn(1, 3), [1.0] * 3, 0)
    before, state = strategy.base.clone(), {k: v.clone() for k, v in strategy.state_dict().items()}
    bad = drawn(2, 3)
    bad[1, 0] = math.nan
    update = trained(strategy, bad, [1.0] * 3, 1)
    assert "a gradient is not finite (1 times" in update.reason
    assert torch.equal(strategy.base, before) and int(strategy.kept) == 1
    state.pop("kept")
    assert all(torch.equal(strategy.state_dict()[name], value) for name, value in state.items())


# State and draws


@pytest.mark.parametrize("name", [*BY_NAME, "GradNorm"])
def test_state_round_trips_into_a_fresh_object(name: str) -> None:
    def fresh() -> Weighting:
        return make_gradnorm(4) if name == "GradNorm" else make(BY_NAME[name], 4)

    whole, first, second = fresh(), fresh(), fresh()
    for step in range(8):
        gradients, losses = drawn(step, 4), torch.rand(4).double() + 0.5
        if step % 3 == 1:
            losses[step % 4] = math.nan
        if step == 4:
            second.load_state_dict({k: v.clone() for k, v in first.state_dict().items()})
        expected = trained(whole, gradients, losses, step)
        assert trained(first if step < 4 else second, gradients, losses, step) == expected
    assert torch.equal(whole.weights(8), second.weights(8))
    assert whole.base.tolist() != [1.0] * 4


def test_gradvac_keeps_what_is_usual_by_task() -> None:
    strategy = make(BY_NAME["GradVac"], 3, beta=1.0)
    gradients = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]]).double()
    trained(strategy, gradients, [1.0, math.nan, 1.0], 0)
    expected = torch.zeros(3, 3).double()
    expected[0, 2] = expected[2, 0] = 0.6
    assert torch.allclose(strategy.usual, expected)


@pytest.mark.parametrize("name", ["PCGrad", "GradVac"])
def test_orders_come_from_seed_and_step(name: str) -> None:
    gradients = torch.tensor([[1.0, 0.0], [-0.8, 0.6], [-0.6, -0.8], [0.3, -1.0]]).double()

    def weights(step: int, **changes: Any) -> tuple[float, ...]:
        return tuple(solved(make(BY_NAME[name], 4, **changes), gradients, step).tolist())

    torch.manual_seed(1)
    state = torch.random.get_rng_state()
    assert weights(7) == weights(7)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert len({weights(step) for step in range(20)}) > 5
    assert len({weights(7, seed=seed) for seed in range(20)}) > 5


def test_pcgrad_averages_over_orders() -> None:
    gradients = torch.tensor([[1.0, 0.0], [-0.8, 0.6], [-0.6, -0.8], [0.3, -1.0]]).double()
    row = BY_NAME["PCGrad"]
    single = torch.stack([solved(make(row, 4), gradients, step) for step in range(400)])
    many = solved(make(row, 4, orders=400), gradients)
    error = single.std(0) * (2 / 400) ** 0.5  # of the difference of two means of 400
    assert error.min() > 0.01  # orders matter for every weight
    assert ((many - single.mean(0)).abs() < 3 * error).all()


# Refused arguments


@pytest.mark.parametrize(
    ("name", "arguments", "words"),
    [
        ("MGDA", {"normalize": "sum"}, "normalize"),
        ("PCGrad", {"orders": 0}, "orders"),
        ("PCGrad", {"seed": -1}, "seed"),
        ("GradVac", {"beta": 1.5}, "beta"),
        ("CAGrad", {"c": -0.1}, r"weighting\.c"),
        ("FairGrad", {"alpha": -1.0}, "alpha"),
        ("AlignedMTL", {"scale": "max"}, "scale"),
        ("MGDA", {"eval_steps": 0}, "eval_steps"),
    ],
)
def test_refuses(name: str, arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make(BY_NAME[name], 2, **arguments)
