"""Loss-level strategies: values by hand, TorchJD's answers, what the papers promise."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torchjd import scalarization

from polyqwen.weighting.adam import AdamRule
from polyqwen.weighting.base import Weighting
from polyqwen.weighting.by_loss.dwa import DynamicWeightAverage
from polyqwen.weighting.by_loss.equal import EqualWeighting
from polyqwen.weighting.by_loss.famo import FAMO
from polyqwen.weighting.by_loss.gls import GeometricLossStrategy
from polyqwen.weighting.by_loss.imtl_l import ImpartialLossWeighting
from polyqwen.weighting.by_loss.random import RandomWeighting
from polyqwen.weighting.by_loss.stch import SmoothTchebycheff
from polyqwen.weighting.by_loss.stw import StrategicTaskWeighting
from polyqwen.weighting.by_loss.stw_learned import LearnedStrategicTaskWeighting
from polyqwen.weighting.by_loss.uncertainty import UncertaintyWeighting
from polyqwen.weighting.by_loss.uw_so import SoftOptimalUncertainty
from polyqwen.weighting.weight_update import WeightUpdate

STATIC = {"a": 1.0, "b": 1.0, "c": 1.0}
LOSSES = (4.0, 1.0, 0.5)
BETA = {"foundation": 1.0, "balance": 1.0, "until_step": None}


def told(
    weighting: Weighting, losses: Any = LOSSES, rows: Any = (8, 8, 8), step: int = 0
) -> WeightUpdate:
    weighting.observe(torch.as_tensor(losses), torch.tensor(rows))
    update = weighting.update(step)
    assert update is not None
    return update


def weights(weighting: Weighting, *args: Any, **kwargs: Any) -> list[float]:
    return list(told(weighting, *args, **kwargs).new.values())


def near(values: Any) -> Any:
    return pytest.approx(list(values), rel=1e-6)


# By hand


def test_equal() -> None:
    weighting = EqualWeighting({"a": 3.0, "b": 0.2})
    assert weighting.base.tolist() == [1.0, 1.0]
    weighting.observe(torch.tensor([1.0, 9.0]), torch.tensor([1, 1]))
    assert list(weighting.update(1).new.values()) == [1.0, 1.0]  # type: ignore[union-attr]


def test_random_draws_depend_on_seed_and_step_alone() -> None:
    first, again, other = (
        RandomWeighting(STATIC),
        RandomWeighting(STATIC),
        RandomWeighting(STATIC, 1),
    )
    told(first, step=3)
    same = weights(first, step=7)
    assert weights(again, (9.0, 9.0, 9.0), step=7) == same != weights(other, step=7)
    assert sum(same) == pytest.approx(3.0) and min(same) > 0.0
    drawn = torch.tensor([weights(first, step=step) for step in range(4000)])
    expected = 3 * torch.randn(200_000, 3).softmax(-1)
    assert torch.allclose(drawn.mean(0), torch.ones(3), atol=0.05)
    assert torch.allclose(drawn.std(0), expected.std(0), atol=0.03)


def test_dynamic_weight_average() -> None:
    dwa = DynamicWeightAverage(STATIC, temperature=2.0)
    assert weights(dwa) == near([1.0, 1.0, 1.0])  # one window: no rates yet
    update = told(dwa, (2.0, 1.0, 1.0))
    soft = [math.exp(r / 2) for r in (0.5, 1.0, 2.0)]
    assert list(update.new.values()) == near(3 * s / sum(soft) for s in soft)
    assert list(update.causes["rate"].values()) == near([0.5, 1.0, 2.0])
    held = weights(dwa, (1.0, 7.0, 1.0), (8, 0, 8))  # b is absent and keeps weight and history
    assert held[1] == update.new["b"] and held[0] + held[2] == pytest.approx(2.0)
    assert told(dwa, (1.0, 2.0, 1.0)).causes["rate"]["b"] == pytest.approx(2.0)


@pytest.mark.parametrize("variant", ["kendall", "positive"])
def test_uncertainty_learns_after_the_step(variant: str) -> None:
    uw = UncertaintyWeighting(static=STATIC, variant=variant, learning_rate=0.1, normalize="none")
    assert uw.weights(0).tolist() == [0.5] * 3
    told(uw)  # the first step of Adam has the size of the learning rate
    moved = {"kendall": (0.1, 0.0, -0.1), "positive": (1.1, 1.0, 0.9)}[variant]
    assert uw.scalars.tolist() == pytest.approx(moved, abs=1e-6)
    of = (lambda s: 0.5 * math.exp(-s)) if variant == "kendall" else (lambda c: 0.5 / c**2)
    assert uw.weights(1).tolist() == pytest.approx([of(s) for s in moved], rel=1e-5)


def test_uncertainty_finds_its_optimum() -> None:
    kendall, imtl = (
        kind(static=STATIC, learning_rate=0.05, normalize="none")
        for kind in (UncertaintyWeighting, ImpartialLossWeighting)
    )
    for _ in range(600):
        told(kendall)
        told(imtl)
    assert kendall.weights(0).tolist() == pytest.approx([0.5 / loss for loss in LOSSES], rel=1e-3)
    assert imtl.weights(0).tolist() == pytest.approx([1 / loss for loss in LOSSES], rel=1e-3)


def test_soft_optimal_uncertainty() -> None:
    soft = [math.exp(1 / loss / 0.5) for loss in LOSSES]
    weighting = SoftOptimalUncertainty(static=STATIC, temperature=0.5, normalize="none")
    assert weights(weighting) == near(s / sum(soft) for s in soft)
    assert weights(weighting, (1e-9, 1.0, 1.0)) == near([1.0, 0.0, 0.0])
    few = weights(SoftOptimalUncertainty(static=STATIC), (1.0, 5.0, 1.0), (8, 0, 8))
    assert few == near([1.0, 1.0, 1.0])


def test_geometric_loss() -> None:
    mean = 2.0 ** (1 / 3)
    gls = GeometricLossStrategy(STATIC, normalize="none")
    assert weights(gls) == near(mean / (3 * loss) for loss in LOSSES)
    assert sum(weights(GeometricLossStrategy(STATIC))) == pytest.approx(3.0)


def test_smooth_tchebycheff_after_its_warmup() -> None:
    stch = SmoothTchebycheff(static=STATIC, mu=0.5, warmup=2, normalize="none")
    assert weights(stch, (9.0, 9.0, 9.0)) == near([1 / 9] * 3)  # first half: not in the nadir
    assert weights(stch, (4.0, 2.0, 1.0)) == near([0.25, 0.5, 1.0])
    behind = [math.exp(math.log(loss / nadir) / 0.5) for loss, nadir in ((2, 4), (2, 2), (3, 1))]
    expected = [3 * b / sum(behind) / loss for b, loss in zip(behind, (2, 2, 3), strict=True)]
    assert weights(stch, (2.0, 2.0, 3.0)) == near(expected)
    late = SmoothTchebycheff(static=STATIC, warmup=1)
    told(late, rows=(8, 0, 8))
    assert "2 of 3 tasks past" in told(late).reason


def test_famo_by_hand_with_a_second_look() -> None:
    famo = FAMO(static=STATIC, learning_rate=0.1, decay=0.0, normalize="none")
    famo.bind(dict.fromkeys(STATIC, 0.0))
    inverse = [1 / 3 / loss for loss in LOSSES]
    assert weights(famo) == near(i / sum(inverse) for i in inverse)
    famo.observe_after(torch.tensor([2.0, 1.0, 0.5]))  # a has halved
    assert famo.xi.tolist() == pytest.approx([-0.1, 0.1, 0.1], abs=1e-6)  # and is pushed less
    z = torch.tensor([-0.1, 0.1, 0.1]).softmax(0).tolist()
    assert list(told(famo).causes["share"].values()) == pytest.approx(z)


def test_famo_without_a_second_look_takes_the_next_steps_losses() -> None:
    famo = FAMO(static=STATIC, learning_rate=0.1, decay=0.0, second_forward=False)
    assert not famo.needs_after
    told(famo)
    assert famo.xi.tolist() == [0.0] * 3
    told(famo, (2.0, 1.0, 0.5))
    assert famo.xi.tolist() == pytest.approx([-0.1, 0.1, 0.1], abs=1e-6)
    told(famo, (2.0, 9.0, 0.5), (8, 0, 8))  # b is absent: nothing is known of its gain
    assert famo.xi[1] == pytest.approx(0.1)


def test_lower_bounds_are_taken_off() -> None:
    for kind in (GeometricLossStrategy, SoftOptimalUncertainty):
        shifted, plain = kind(static=STATIC), kind(static=STATIC)
        shifted.bind({"a": -4.0, "b": 0.0, "c": -1.0})
        assert weights(shifted, (0.0, 1.0, -0.5)) == near(weights(plain))


@settings(deadline=None, max_examples=30)
@given(st.lists(st.floats(0.05, 20.0), min_size=3, max_size=3), st.floats(0.1, 10.0))
def test_inverse_loss_weights_are_one_family(losses: list[float], scale: float) -> None:
    """GLS, STW with α = β = 1, the optimum of IMTL-L and UW: λ ∝ 1 / l, so scales do not matter."""
    stw = StrategicTaskWeighting(
        STATIC, {}, BETA, min_samples=1, rate_limit=None, bounds=(1e-9, 1e9), loss_floor=1e-9
    )
    gls = GeometricLossStrategy(STATIC)
    inverse = [1 / loss for loss in losses]
    expected = [3 * i / sum(inverse) for i in inverse]
    assert weights(gls, losses) == pytest.approx(expected, rel=1e-5)
    assert weights(stw, losses) == pytest.approx(expected, rel=1e-5)
    scaled = [losses[0] * scale, *losses[1:]]
    terms = [w * loss for w, loss in zip(weights(gls, scaled), scaled, strict=True)]
    assert max(terms) == pytest.approx(min(terms), rel=1e-5)


# TorchJD, float32 and so to 1e-5


def series(steps: int = 6) -> list[Tensor]:
    generator = torch.Generator().manual_seed(5)
    return list(torch.rand(steps, 3, generator=generator) * 3 + 0.2)


def slopes(scalarizer: Callable[[Tensor], Tensor], losses: Tensor) -> Tensor:
    """The weights that a scalarised loss amounts to: its gradient."""
    values = losses.clone().requires_grad_()
    return torch.autograd.grad(scalarizer(values), values)[0]


def assert_same(weighting: Weighting, expected: Tensor) -> None:
    assert torch.allclose(weighting.base.float(), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("own", "theirs", "parameter"),
    [
        (UncertaintyWeighting, scalarization.UW(3), "log_var"),
        (ImpartialLossWeighting, scalarization.IMTLL(3), "log_scale"),
    ],
)
def test_learned_scalars_agree_with_torchjd(own: Any, theirs: Any, parameter: str) -> None:
    """Joint training there, an update of our own after the step here: the same."""
    weighting = own(static=STATIC, learning_rate=0.025, normalize="none")
    adam = torch.optim.Adam(theirs.parameters(), lr=0.025)
    for step, losses in enumerate(series()):
        assert_same(weighting, slopes(theirs, losses))
        adam.zero_grad()
        theirs(losses).backward()
        adam.step()
        told(weighting, losses, step=step)
    assert getattr(theirs, parameter).abs().min() > 0.01


def test_famo_agrees_with_torchjd() -> None:
    weighting, theirs = FAMO(static=STATIC, normalize="none"), scalarization.FAMO(3)
    for step, losses in enumerate(series()):
        told(weighting, losses, step=step)
        assert_same(weighting, slopes(theirs, losses))
        after = losses * torch.tensor([0.9, 0.7, 1.05])
        weighting.observe_after(after)
        theirs.update(after)
    assert weighting.xi.abs().min() > 0.01


def test_dynamic_weight_average_agrees_with_torchjd() -> None:
    weighting, theirs = DynamicWeightAverage(STATIC), scalarization.DWA()
    for losses in series():
        assert_same(weighting, slopes(theirs, losses))
        theirs.step()
        told(weighting, losses)


def test_geometric_mean_and_tchebycheff_agree_with_torchjd() -> None:
    gls = GeometricLossStrategy(STATIC, normalize="none")
    stch = SmoothTchebycheff(static=STATIC, mu=0.3, warmup=1, normalize="none")
    nadir = series()[0]
    told(stch, nadir)
    smooth = scalarization.STCH(0.3, weights=torch.ones(3))
    for losses in series()[1:]:
        told(gls, losses)
        assert_same(gls, slopes(scalarization.GeometricMean(), losses))
        told(stch, losses)
        assert_same(stch, 3 * slopes(lambda v: smooth((v / nadir).log()), losses))


def test_the_rule_is_torchs_adam_for_those_who_take_part() -> None:
    rule, values = AdamRule(3, 0.05, decay=0.01), torch.zeros(3, dtype=torch.float64)
    parameter = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    adam = torch.optim.Adam([parameter], lr=0.05, weight_decay=0.01)
    for losses in series():
        parameter.grad = losses.double()
        adam.step()
        values = rule.step(values, losses.double(), torch.tensor([True, True, False]))
    assert torch.allclose(values[:2], parameter.detach()[:2], rtol=1e-9)
    assert values[2] == rule.steps[2] == 0


# Strategic task weighting, hardened


def stw(**changes: Any) -> StrategicTaskWeighting:
    free = {"rate_limit": None, "min_samples": 1, "loss_floor": 1e-6, "bounds": (1e-3, 1e3)}
    return StrategicTaskWeighting(
        **({"static": STATIC, "alpha": {}, "beta": BETA} | free | changes)
    )


def test_handover_begins_at_the_static_weights_and_ends_at_the_formula() -> None:
    static = {"a": 0.5, "b": 1.5, "c": 1.2}
    gradual = stw(static=static, handover=4, normalize="none")
    target = weights(stw(static=static, normalize="none"))
    found = [weights(gradual) for _ in range(6)]
    assert found[0] == near(static.values())
    halfway = [math.sqrt(s * t) for s, t in zip(static.values(), target, strict=True)]
    assert found[2] == near(halfway)
    assert found[4] == near(target) == found[5]
    summed = weights(stw(static=static, handover=4))  # in the same proportions
    assert summed == near(weight * 3 / 3.2 for weight in static.values())
    kept = stw(static=static, handover=None)  # α recalibrated for good: ratios move from there
    told(kept)
    moved = weights(kept, (2.0, 1.0, 0.5))
    assert moved[0] / moved[1] == pytest.approx(2 * 0.5 / 1.5)


def test_interval_follows_how_fast_losses_move() -> None:
    weighting = stw(
        eval_steps=8, interval={"shortest": 2, "longest": 32, "move": 0.1, "settle": 0.02}
    )
    assert [s for s in range(10) if weighting.due(s)] == [7]
    intervals, step, level = [], 8, 4.0
    for change in (1.0, 1.0, 1.0, 1.0, 1.05, 1.5, 0.5, 1.0):
        level *= change
        update = told(weighting, (level, 1.0, 1.0), step=step)
        wait = next(n for n in range(100) if weighting.due(step + n)) + 1
        assert f"next in {wait} steps" in update.reason
        intervals.append(wait)
        step += wait
    assert intervals == [2, 4, 8, 16, 16, 8, 4, 8]


@pytest.mark.parametrize(
    ("interval", "words"),
    [
        ({"shortest": 4, "longest": 2}, "shortest <= longest"),
        ({"shortest": 4, "longest": 8, "move": 0.1, "settle": 0.2}, "settle < move"),
    ],
)
def test_refused_intervals(interval: dict[str, float], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        stw(interval=interval)


def learned(**changes: Any) -> LearnedStrategicTaskWeighting:
    free = {"rate_limit": None, "min_samples": 1, "loss_floor": 1e-6, "bounds": (1e-3, 1e3)}
    settings = {"static": STATIC, "alpha": {"a": 0.5}, "beta": BETA, "beta_bounds": (0.8, 1.2)}
    return LearnedStrategicTaskWeighting(**(settings | free | changes))


def trusted(weighting: Weighting, losses: Any, rows: Any = (8, 8, 8)) -> WeightUpdate:
    weighting.observe(torch.tensor(LOSSES), torch.tensor(rows))
    update = weighting.update(1, torch.tensor(losses))
    assert update is not None
    return update


def test_alpha_grows_where_trusted_rows_lag_behind() -> None:
    weighting = learned(alpha_rate=0.5)
    assert trusted(weighting, (4.0, 2.0, 1.0)).causes["alpha"] == {"a": 0.5, "b": 1.0, "c": 1.0}
    update = trusted(weighting, (4.0, 1.0, 1.0))  # b has halved, the others stand
    progress = (1.0, 0.5, 1.0)
    mean = sum(progress) / 3
    alpha = [s * math.exp(0.5 * (p / mean - 1)) for s, p in zip((0.5, 1, 1), progress, strict=True)]
    assert list(update.causes["alpha"].values()) == near(alpha)
    formula = [a / loss for a, loss in zip(alpha, LOSSES, strict=True)]
    assert list(update.new.values()) == near(3 * f / sum(formula) for f in formula)
    for _ in range(100):
        update = trusted(weighting, (4.0, 0.1, 1.0))
    assert update.causes["alpha"]["b"] == pytest.approx(0.25)  # alpha_range: a factor of 4
    assert update.causes["alpha"]["a"] == pytest.approx(2.0)


def test_beta_follows_the_sign_of_trusted_progress() -> None:
    weighting = learned(beta_rate=0.1)
    trusted(weighting, (4.0, 2.0, 1.0))
    assert weighting.beta(0) == 1.0
    trusted(weighting, (3.0, 2.0, 1.0))
    assert weighting.beta(0) == pytest.approx(1.1)
    trusted(weighting, (4.0, 2.0, 1.0))
    assert weighting.beta(0) == pytest.approx(0.99)
    for _ in range(20):
        trusted(weighting, (5.0, 2.0, 1.0))
    assert weighting.beta(0) == pytest.approx(0.8)


def test_tasks_out_of_training_teach_nothing() -> None:
    weighting = learned()
    trusted(weighting, (4.0, 2.0, 1.0), (8, 8, 0))
    update = trusted(weighting, (4.0, 1.0, 9.0), (8, 8, 0))
    assert "c" not in update.causes["trusted_progress"]
    assert update.causes["alpha"]["c"] == 1.0 and math.isnan(weighting.first[2])


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: DynamicWeightAverage(STATIC, temperature=0.0), "temperature"),
        (lambda: UncertaintyWeighting(static=STATIC, variant="gal"), "kendall, positive"),
        (lambda: UncertaintyWeighting(static=STATIC, learning_rate=0.0), "learning_rate"),
        (lambda: UncertaintyWeighting(static=STATIC, normalize="sum"), "sum_to_T"),
        (lambda: SoftOptimalUncertainty(static=STATIC, temperature=-1.0), "temperature"),
        (lambda: SmoothTchebycheff(static=STATIC, mu=0.0), "mu"),
        (lambda: SmoothTchebycheff(static=STATIC, warmup=0), "warmup"),
        (lambda: FAMO(static=STATIC, decay=-1.0), "decay"),
        (lambda: learned(alpha_range=1.0), "alpha_range"),
        (lambda: learned(alpha_rate=-1.0), "alpha_rate"),
        (lambda: learned(beta_rate=1.0), "beta_rate"),
        (lambda: learned(beta_bounds=(1.1, 1.2)), "beta_bounds"),
        (lambda: stw(handover=-1), "handover"),
    ],
)
def test_refuses(make: Callable[[], Weighting], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make()
