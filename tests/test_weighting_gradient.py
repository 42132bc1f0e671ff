"""Weighting by gradients: one row per strategy, its values by hand and what its paper promises."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import scipy.optimize
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torchjd import aggregation

from polyqwen.weighting.base import Weighting
from polyqwen.weighting.by_gradient.aligned_mtl import AlignedMTL
from polyqwen.weighting.by_gradient.base import GradientWeighting, cosines
from polyqwen.weighting.by_gradient.cagrad import CAGrad
from polyqwen.weighting.by_gradient.equal_norm import EqualNorm
from polyqwen.weighting.by_gradient.equilibrium import equilibrium
from polyqwen.weighting.by_gradient.fairgrad import FairGrad
from polyqwen.weighting.by_gradient.gradnorm import GradNorm
from polyqwen.weighting.by_gradient.gradvac import GradVac
from polyqwen.weighting.by_gradient.imtl_g import IMTLG
from polyqwen.weighting.by_gradient.mgda import MGDA
from polyqwen.weighting.by_gradient.nash_mtl import NashMTL
from polyqwen.weighting.by_gradient.pcgrad import PCGrad
from polyqwen.weighting.by_gradient.quadratic import nonnegative_minimum
from polyqwen.weighting.by_gradient.torchjd import TorchJD
from polyqwen.weighting.by_gradient.upgrad import UPGrad
from polyqwen.weighting.gram import FullParameterGram, Graph
from polyqwen.weighting.record import WeightUpdate

ROOT2 = math.sqrt(2.0)
Solve = Callable[[Tensor], Tensor]


class Row(NamedTuple):
    """A strategy and what holds for it.

    Attributes:
        make: the class.
        orthogonal: weights for gradients (1, 0) and (0, 2).
        conflict: weights for gradients (1, 0) and (-1, 1).
        arguments: of the class.
        degree: k where multiplying all gradients by s multiplies weights by s^k.
        harmless: g_t · d >= 0 for all tasks; "two": with two tasks; "independent": for linearly
            independent gradients.
        ignores_scale: multiplying one task's gradient by a constant leaves d's direction alone.
        any_order: the order of tasks does not matter; some strategies draw it.
        library: the same in TorchJD.
        tolerance: relative to the largest weight.
        spread: largest ratio of norms compared; TorchJD's Frank-Wolfe and least squares are coarse.
    """

    make: type[GradientWeighting]
    orthogonal: tuple[float, float]
    conflict: tuple[float, float] | None
    arguments: dict[str, Any] = {}  # noqa: RUF012
    degree: float = 0.0
    harmless: str = "no"
    ignores_scale: bool = False
    any_order: bool = True
    library: Callable[[], Solve] | None = None
    tolerance: float = 1e-9
    spread: float = 10.0


def imtl_g_of_torchjd(gram: Tensor) -> Tensor:
    """Scaled by the sum of absolute values, and pointing where projections are positive."""
    weights = aggregation.IMTLGWeighting()(gram)
    return weights / weights.abs().sum() * torch.sign((gram @ weights)[0])


INVERSE = (2.0 / math.sqrt(5.0), 1.5 / math.sqrt(5.0))  # of the conflict's Gram matrix' root, · ½
LEAST = (math.sqrt(5.0) - 1.0) / 2.0  # root of its least eigenvalue
ROWS = [
    Row(
        EqualNorm,
        orthogonal=(1.5, 0.75),
        conflict=((1 + ROOT2) / 2, (1 + ROOT2) / 2 / ROOT2),
        ignores_scale=True,
    ),
    Row(
        MGDA,
        orthogonal=(0.8, 0.2),
        conflict=(0.6, 0.4),
        harmless="yes",
        library=lambda: aggregation.MGDAWeighting(epsilon=1e-6, max_iters=2000),
        tolerance=0.1,  # so far it is after 2000 steps; the minimum itself is tested below
        spread=2.0,
    ),
    Row(
        PCGrad,
        orthogonal=(1.0, 1.0),
        conflict=(2.0, 1.5),
        harmless="two",
        any_order=False,
        library=aggregation.PCGradWeighting,
    ),
    Row(
        GradVac,
        orthogonal=(1.0, 1.0),
        conflict=(2.0, 1.5),
        arguments={"beta": 0.5},
        harmless="two",
        any_order=False,
        library=lambda: aggregation.GradVacWeighting(beta=0.5, eps=0.0),
    ),
    Row(  # d = g_0 + r g_1: the first task stays the worst off, in the second case just so
        CAGrad,
        arguments={"c": 0.5},
        orthogonal=(0.5 + math.sqrt(5.0) / 4, 0.5),
        conflict=(0.75, 0.5),
    ),
    Row(
        NashMTL,
        orthogonal=(1.0, 0.5),
        conflict=(1 / math.sqrt(1 - 1 / ROOT2), 1 / math.sqrt(2 - ROOT2)),
        degree=-1.0,
        harmless="yes",
        ignores_scale=True,
        library=lambda: aggregation.FairGradWeighting(alpha=1.0),
        tolerance=1e-5,
    ),
    Row(
        FairGrad,
        arguments={"alpha": 2.0},
        orthogonal=(1.0, 2 ** (-4 / 3)),
        conflict=None,  # no closed form
        degree=-4 / 3,
        harmless="yes",
        library=lambda: aggregation.FairGradWeighting(alpha=2.0),
        tolerance=1e-5,
    ),
    Row(
        IMTLG,
        orthogonal=(2 / 3, 1 / 3),
        conflict=(ROOT2 / (1 + ROOT2), 1 / (1 + ROOT2)),
        harmless="independent",
        ignores_scale=True,
        library=lambda: imtl_g_of_torchjd,
    ),
    Row(
        AlignedMTL,
        orthogonal=(0.5, 0.25),
        conflict=(LEAST * INVERSE[0], LEAST * INVERSE[1]),
        library=aggregation.AlignedMTLWeighting,
    ),
    Row(UPGrad, orthogonal=(0.5, 0.5), conflict=(1.0, 0.75), harmless="yes"),
]
BY_NAME = {row.make.__name__: row for row in ROWS}


def make(row: Row, tasks: int, **changes: Any) -> GradientWeighting:
    static = {f"task{i}": 1.0 for i in range(tasks)}
    return row.make(static, FullParameterGram(), **(row.arguments | changes))


def solved(strategy: GradientWeighting, gradients: Tensor, step: int = 0) -> Tensor:
    """Weights on the paper's scale for gradients (T, P)."""
    return strategy.solve(gradients @ gradients.T, torch.arange(len(gradients)), step)


def drawn(seed: int, tasks: int, size: int | None = None, spread: float = 10.0) -> Tensor:
    """Random gradients, their norms a factor of ``spread`` apart at most, roughly: (T, P)."""
    generator = torch.Generator().manual_seed(seed)
    kwargs: dict[str, Any] = {"dtype": torch.float64, "generator": generator}
    rows = torch.randn(tasks, size or tasks + 1, **kwargs)
    rows = rows / rows.norm(dim=1, keepdim=True)
    return rows * spread ** torch.rand(tasks, 1, **kwargs)


def rows_of(number: str = "every") -> Any:
    chosen = [row for row in ROWS if number == "every" or getattr(row, number) not in (None, "no")]
    return pytest.mark.parametrize("row", chosen, ids=lambda row: row.make.__name__)


SEEDS = st.integers(0, 10**6)
FEW = settings(deadline=None, max_examples=40)


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


def trained(strategy: Weighting, gradients: Tensor, losses: Any, step: int) -> WeightUpdate:
    """One step whose tasks have these gradients (T, P) and losses; NaN: the task is absent."""
    losses = torch.as_tensor(losses, dtype=torch.float64)
    theta = nn.Parameter(torch.zeros(gradients.shape[1], dtype=torch.float64))
    graph = Graph(torch.zeros(1, 1), torch.zeros(1, 1), [theta])
    present = ~losses.isnan()
    assert strategy.gram is not None
    strategy.gram.add(
        [row @ theta if here else None for row, here in zip(gradients, present, strict=True)], graph
    )
    strategy.observe(losses, present.long() * 4)
    update = strategy.update(step)
    assert update is not None
    return update


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


def make_gradnorm(tasks: int = 3, **changes: Any) -> GradNorm:
    return GradNorm({f"task{i}": 1.0 for i in range(tasks)}, FullParameterGram(), **changes)


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
    assert single.std(0).max() > 0.05
    assert torch.allclose(many, single.mean(0), atol=0.1)


# GradNorm


def test_gradnorm_takes_the_papers_plain_step() -> None:
    strategy = make_gradnorm(2, alpha=1.0, lr=0.1, optimizer="sgd")
    gradients = torch.tensor([[1.0, 0.0], [0.0, 3.0]]).double()
    trained(strategy, gradients, [2.0, 4.0], 1)
    # ratios 1 and 1: norms 1 and 3 aim at 2, so w = (1 + .1, 1 − .3), then times 2 / 1.8
    assert strategy.base.tolist() == pytest.approx([1.1 * 2 / 1.8, 0.7 * 2 / 1.8])
    update = trained(strategy, gradients, [2.0, 1.0], 2)
    # ratios 1 and 1/4, so rates 1.6 and .4; norms 11/9 and 7/3 aim at 16/9 · rates
    assert list(update.causes["training_rate"].values()) == pytest.approx([1.6, 0.4])
    first, second = 11 / 9 + 0.1, 7 / 9 - 0.3
    assert strategy.base.tolist() == pytest.approx(
        [2 * first / (first + second), 2 * second / (first + second)]
    )


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_gradnorm_levels_norms_and_then_favours_the_task_that_lags(optimizer: str) -> None:
    strategy = make_gradnorm(2, alpha=1.0, lr=0.01, optimizer=optimizer)
    gradients = torch.tensor([[1.0, 0.0], [0.0, 4.0]]).double()
    for step in range(300):
        trained(strategy, gradients, [1.0, 1.0], step)
    assert strategy.base.tolist() == pytest.approx([1.6, 0.4], abs=0.05)
    for step in range(300):  # the second task's loss falls, the first one's stays
        trained(strategy, gradients, [1.0, 0.25], step)
    norms = (strategy.base * torch.tensor([1.0, 4.0])).tolist()
    assert norms[0] / norms[1] == pytest.approx(4.0, rel=0.1)


def test_gradnorms_adam_steps_do_not_depend_on_scale() -> None:
    weights = []
    for scale in (1e-8, 1.0, 1e8):
        strategy = make_gradnorm(3)
        for step in range(20):
            trained(strategy, drawn(step, 3) * scale, [1.0, 2.0, 3.0], step)
        weights.append(strategy.base.tolist())
    assert weights[0] == pytest.approx(weights[1]) and weights[2] == pytest.approx(weights[1])


def test_gradnorms_adam_is_torchs() -> None:
    strategy = make_gradnorm(2, alpha=0.0, lr=0.01, normalize="none")
    weight = nn.Parameter(torch.ones(2).double())
    adam = torch.optim.Adam([weight], lr=0.01, eps=0.0)
    for step in range(30):
        gradients = drawn(step, 2)
        trained(strategy, gradients, [1.0, 1.0], step)
        norms = weight * gradients.norm(dim=1)
        adam.zero_grad()
        (norms - norms.mean().detach()).abs().sum().backward()
        adam.step()
        assert torch.allclose(strategy.base, weight.detach())
    assert (weight.detach() - 1).abs().max() > 0.05


def test_gradnorm_leaves_absent_and_lone_tasks_alone() -> None:
    strategy = make_gradnorm(3)
    trained(strategy, drawn(0, 3), [1.0, 2.0, 3.0], 0)
    assert strategy.first.tolist() == [1.0, 2.0, 3.0]
    before = strategy.base.clone()
    trained(strategy, drawn(1, 3), [0.5, math.nan, 3.0], 1)
    assert strategy.base[1] == before[1] and strategy.base[0] != before[0]
    assert float(strategy.base[[0, 2]].sum()) == pytest.approx(2.0)
    before = strategy.base.clone()
    update = trained(strategy, drawn(2, 3), [math.nan, math.nan, 3.0], 2)
    assert torch.equal(strategy.base, before) and update.reason.startswith("fewer than two")


def test_gradnorm_stays_above_its_floor_and_refuses_losses_without_bound() -> None:
    strategy = make_gradnorm(2, lr=0.5, floor=0.01)
    for step in range(20):
        trained(strategy, torch.tensor([[1e8, 0.0], [0.0, 1e-3]]).double(), [1.0, 0.0], step)
    assert torch.isfinite(strategy.base).all()
    assert 0.005 < float(strategy.base[0]) <= 0.01
    assert make_gradnorm(2).lag == 1 and make(ROWS[0], 2).lag == 0
    with pytest.raises(ValueError, match="no known lower bound"):
        strategy.bind({"task0": 0.0, "task1": None})


# TorchJD as a plug


def make_torchjd(name: str, tasks: int = 3, **changes: Any) -> TorchJD:
    return TorchJD({f"task{i}": 1.0 for i in range(tasks)}, FullParameterGram(), name, **changes)


def test_torchjd_solves_as_the_library_does() -> None:
    gradients = drawn(4, 3)
    gram = gradients @ gradients.T
    for name, arguments in (("MGDAWeighting", {"epsilon": 1e-5}), ("IMTLGWeighting", None)):
        strategy = make_torchjd(name, arguments=arguments)
        expected = getattr(aggregation, name)(**(arguments or {}))(gram)
        assert torch.equal(solved(strategy, gradients), expected)
    trained(strategy, gradients, [1.0] * 3, 0)
    assert strategy.base.tolist() == pytest.approx((3 * expected / expected.abs().sum()).tolist())


def test_torchjds_draws_come_from_seed_and_step() -> None:
    torch.manual_seed(3)
    state = torch.random.get_rng_state()
    strategy = make_torchjd("RandomWeighting")
    first, again, other = (solved(strategy, drawn(0, 3), step) for step in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize(
    ("name", "arguments", "words"),
    [
        ("Mgda", None, "near: .*MGDAWeighting"),
        ("MGDA", None, "near: .*MGDAWeighting"),
        ("Weighting", None, "no weighting of torchjd"),
        ("GradVacWeighting", None, "cannot restore from a checkpoint"),
        ("MGDAWeighting", {"eps": 1.0}, "epsilon.*unexpected keyword argument 'eps'"),
        ("MGDAWeighting", {"epsilon": -1.0}, "must be positive"),
        ("KrumWeighting", {"n_byzantine": 9}, "does not work on a 3 x 3"),
        ("ConstantWeighting", {"weights": [1.0, 2.0]}, "do not suit"),
        ("UPGradWeighting", None, "requires .*quadprog"),
    ],
)
def test_torchjd_refuses_in_one_line(name: str, arguments: Any, words: str) -> None:
    if name == "UPGradWeighting":
        pytest.importorskip("torchjd")
        if _importable("quadprog"):
            pytest.skip("its extra packages are installed")
    with pytest.raises(ValueError, match=words) as error:
        make_torchjd(name, arguments=arguments)
    assert "\n" not in str(error.value)


def _importable(name: str) -> bool:
    import importlib.util

    return importlib.util.find_spec(name) is not None


def test_torchjd_is_asked_for_only_when_used(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "torchjd.aggregation", None)  # as if it were not installed
    with pytest.raises(ValueError, match="pip install torchjd"):
        make_torchjd("MGDAWeighting")


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


@pytest.mark.parametrize("bad", [{"alpha": -1.0}, {"lr": 0.0}, {"optimizer": "x"}, {"floor": 0.0}])
def test_gradnorm_refuses(bad: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"weighting.{next(iter(bad))}"):
        make_gradnorm(**bad)
