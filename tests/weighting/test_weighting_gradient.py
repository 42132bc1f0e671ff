"""Weighting by gradients: values by hand, other implementations, what papers promise."""

import math
from typing import Any

import pytest
import scipy.optimize
import torch
from hypothesis import given
from hypothesis import strategies as st

from polyqwen.weighting.by_gradient.base import cosines
from polyqwen.weighting.by_gradient.solvers import equilibrium, nonnegative_minimum
from tests.weighting.gradient_cases import BY_NAME, FEW, SEEDS, Row, drawn, make, rows_of, solved

# Values by hand


@rows_of()
def test_orthogonal_gradients(row: Row) -> None:
    weights = solved(make(row, 2), torch.tensor([[1.0, 0.0], [0.0, 2.0]]).double())
    assert weights.tolist() == pytest.approx(row.orthogonal, rel=1e-9)


@rows_of("conflict")
def test_conflicting_gradients(row: Row) -> None:
    weights = solved(make(row, 2), torch.tensor([[1.0, 0.0], [-1.0, 1.0]]).double())
    assert weights.tolist() == pytest.approx(row.conflict, rel=1e-9)


def test_fairgrad_of_unit_gradients_at_120_degrees() -> None:
    gradients = torch.tensor([[1.0, 0.0], [-0.5, math.sqrt(0.75)]]).double()
    for alpha in (0.25, 1.0, 2.0, 5.0):  # w − w/2 = w^(−1/α)
        strategy = make(BY_NAME["FairGrad"], 2, alpha=alpha)
        assert solved(strategy, gradients).tolist() == pytest.approx(
            [2 ** (alpha / (1 + alpha))] * 2
        )
    assert solved(make(BY_NAME["FairGrad"], 2, alpha=0.0), gradients).tolist() == [0.5, 0.5]


def test_upgrad_on_the_librarys_own_example() -> None:
    weights = solved(make(BY_NAME["UPGrad"], 2), torch.tensor([[-4, 1, 1], [6, 1, 1]]).double())
    assert weights.tolist() == pytest.approx([(1 + 22 / 18) / 2, (1 + 22 / 38) / 2])
    printed = [1.1109, 0.7894]  # by TorchJD, with 1e-4 on the diagonal
    assert weights.tolist() == pytest.approx(printed, rel=3e-4)


def test_gradvac_bends_towards_the_usual_cosine() -> None:
    strategy = make(BY_NAME["GradVac"], 2, beta=1.0)
    solved(strategy, torch.tensor([[1.0, 0.0], [0.6, 0.8]]).double())
    assert torch.allclose(strategy.usual, torch.tensor([[0.0, 0.6], [0.6, 0.0]]).double())
    # orthogonal units: u_i + x u_j has the cosine x / √(1 + x²) = .6 for x = .75
    assert solved(strategy, torch.eye(2).double()).tolist() == pytest.approx([1.75, 1.75])
    assert strategy.usual.abs().max() < 1e-12  # what was usual is last step's


@FEW
@given(SEEDS, st.integers(1, 6), st.floats(0.05, 3.0))
def test_cagrad_attains_its_bound(seed: int, tasks: int, c: float) -> None:
    """The primal's value at d is the dual's at w: both are optimal."""
    gradients = drawn(seed, tasks)
    mean = gradients.mean(0)
    weights = solved(make(BY_NAME["CAGrad"], tasks, c=c), gradients)
    radius = c * mean.norm()
    assert (weights @ gradients - mean).norm() == pytest.approx(float(radius), rel=1e-7)
    dual = (weights - 1 / tasks) / (weights.sum() - 1)
    assert dual.min() >= -1e-9
    bound = dual @ gradients @ mean + radius * (dual @ gradients).norm()
    worst = (gradients @ (weights @ gradients)).min()
    assert worst == pytest.approx(float(bound), rel=1e-6, abs=1e-7 * float(mean.norm()))
    assert worst >= (gradients @ mean).min() - 1e-9


def test_cagrad_between_the_mean_and_mgda() -> None:
    gradients = drawn(3, 4)
    assert solved(make(BY_NAME["CAGrad"], 4, c=0.0), gradients).tolist() == [0.25] * 4
    far = solved(make(BY_NAME["CAGrad"], 4, c=1e6), gradients)
    mgda = solved(make(BY_NAME["MGDA"], 4), gradients)
    assert (far / far.sum()).tolist() == pytest.approx(mgda.tolist(), abs=1e-5)


# Other implementations


@rows_of("library")
def test_agrees_with_torchjd(row: Row) -> None:
    assert row.library is not None
    for tasks in (2, 3, 5):
        strategy, library = make(row, tasks), row.library()
        for step in range(6):  # the same object, for those with a state
            gradients = drawn(100 * tasks + step, tasks, spread=row.spread)
            torch.manual_seed(step)  # where TorchJD draws, we draw the same
            expected = library(gradients @ gradients.T)
            weights = solved(strategy, gradients, step)
            error = (weights - expected).abs().max() / expected.abs().max()
            assert error < row.tolerance, (tasks, step, weights, expected)


@FEW
@given(SEEDS, st.integers(1, 6), st.integers(1, 7))
def test_upgrad_is_the_mean_of_projections_by_scipy(seed: int, tasks: int, size: int) -> None:
    gradients = drawn(seed, tasks, size)
    direction = solved(make(BY_NAME["UPGrad"], tasks), gradients) @ gradients
    projected = [
        row
        + torch.from_numpy(scipy.optimize.nnls(gradients.T.numpy(), -row.numpy())[0]) @ gradients
        for row in gradients
    ]
    expected = torch.stack(projected).mean(0)
    assert torch.allclose(direction, expected, atol=1e-7 * float(gradients.norm()))


@FEW
@given(SEEDS, st.integers(1, 6), st.integers(1, 7), st.sampled_from([1.0, 1e8]))
def test_mgda_meets_the_conditions_of_a_minimum(
    seed: int, tasks: int, size: int, spread: float
) -> None:
    gradients = drawn(seed, tasks, size, spread)
    weights = solved(make(BY_NAME["MGDA"], tasks), gradients)
    assert weights.min() >= 0 and float(weights.sum()) == pytest.approx(1.0)
    direction = weights @ gradients
    least = float((gradients * gradients).sum(1).min())
    slope = gradients @ direction - direction @ direction
    assert slope.min() >= -1e-7 * max(least, float(direction.norm() * gradients.norm()) * 1e-4)
    assert (weights * slope).abs().max() <= 1e-7 * least


@FEW
@given(SEEDS, st.integers(1, 7), st.floats(0.05, 20.0), st.sampled_from([1.0, 1e4, 1e8]))
def test_the_equilibrium_is_met_to_rounding(
    seed: int, size: int, power: float, spread: float
) -> None:
    gradients = drawn(seed, size, spread=spread)
    _, unit = cosines(gradients @ gradients.T)
    factors = gradients.norm(dim=1) ** min(power - 1, 1.0)
    b = equilibrium(unit, factors, power)
    assert b.min() > 0
    missing = (unit @ b - factors * b**-power).abs()
    assert (missing < 1e-12 * (unit.abs() @ b)).all()


@FEW
@given(SEEDS, st.integers(1, 8), st.integers(1, 8))
def test_nonnegative_minimum_agrees_with_scipy(seed: int, unknowns: int, size: int) -> None:
    matrix, target = drawn(seed, unknowns, size), drawn(seed + 1, 1, size)[0]
    x = nonnegative_minimum(matrix @ matrix.T, matrix @ target)
    expected, length = scipy.optimize.nnls(matrix.T.numpy(), target.numpy())
    assert x.min() >= 0
    assert float((x @ matrix - target).norm()) == pytest.approx(length, abs=1e-7)
    assert torch.allclose(x @ matrix, torch.from_numpy(expected) @ matrix, atol=1e-6)


# What papers promise


@rows_of("harmless")
@FEW
@given(SEEDS, st.integers(1, 6), st.integers(1, 7))
def test_no_task_is_harmed(row: Row, seed: int, tasks: int, size: int) -> None:
    if row.harmless != "yes":
        size = max(size, tasks)
    tasks = min(tasks, 2) if row.harmless == "two" else tasks
    gradients = drawn(seed, tasks, size)
    gram = gradients @ gradients.T
    weights = solved(make(row, tasks), gradients)
    gains, terms = gram @ weights, gram.abs() @ weights.abs()
    assert (gains >= -1e-9 * terms).all()


@pytest.mark.parametrize("name", ["EqualNorm", "PCGrad", "CAGrad", "AlignedMTL"])
def test_others_may_harm_a_task(name: str) -> None:
    row = BY_NAME[name]
    gains = []
    for seed in range(50):
        gradients = drawn(seed, 3, 3, spread=30.0)
        gains.append(float((gradients @ (solved(make(row, 3), gradients) @ gradients)).min()))
    assert min(gains) < -1e-3


@FEW
@given(SEEDS, st.integers(1, 5))
def test_nash_has_a_constant_length_and_imtl_equal_projections(seed: int, tasks: int) -> None:
    gradients = drawn(seed, tasks)
    nash = solved(make(BY_NAME["NashMTL"], tasks), gradients) @ gradients
    assert float(nash @ nash) == pytest.approx(tasks)
    imtl = solved(make(BY_NAME["IMTLG"], tasks), gradients) @ gradients
    projections = gradients @ imtl / gradients.norm(dim=1)
    assert projections.tolist() == pytest.approx([float(projections.mean())] * tasks, rel=1e-5)
    assert projections.min() > 0
    aligned = solved(make(BY_NAME["AlignedMTL"], tasks), gradients) @ gradients
    assert float(gradients.mean(0) @ aligned) >= 0


@rows_of()
@FEW
@given(SEEDS, st.integers(2, 5), st.floats(-3.0, 3.0))
def test_scaling_all_gradients(row: Row, seed: int, tasks: int, exponent: float) -> None:
    gradients, scale = drawn(seed, tasks), 10.0**exponent
    weights = solved(make(row, tasks), gradients)
    expected = weights * scale**row.degree
    after = solved(make(row, tasks), gradients * scale)
    assert torch.allclose(after, expected, rtol=1e-6, atol=1e-7 * float(expected.abs().max()))


@rows_of()
def test_scaling_one_tasks_loss(row: Row) -> None:
    changes = []
    for seed in range(20):
        gradients = drawn(seed, 3)
        factors = torch.tensor([[1.0], [100.0], [1.0]]).double()
        before, after = (solved(make(row, 3), g) @ g for g in (gradients, gradients * factors))
        changes.append(1.0 - float(before @ after / before.norm() / after.norm()))
    assert max(changes) < 1e-8 if row.ignores_scale else max(changes) > 0.05


@rows_of()
@FEW
@given(SEEDS, st.integers(2, 6), st.integers(1, 7), st.randoms(use_true_random=False))
def test_the_order_of_tasks_does_not_matter(
    row: Row, seed: int, tasks: int, size: int, random: Any
) -> None:
    tasks = tasks if row.any_order else 2
    order = random.sample(range(tasks), tasks)
    gradients = drawn(seed, tasks, size)
    weights = solved(make(row, tasks), gradients)
    direction = weights @ gradients
    moved = solved(make(row, tasks), gradients[order])
    near = 1e-6 * float((weights.abs()[:, None] * gradients).norm())
    assert torch.allclose(moved @ gradients[order], direction, atol=near)
    if size > tasks:  # then equal directions mean equal weights
        assert torch.allclose(moved, weights[order], atol=1e-6 * float(weights.abs().max()))
