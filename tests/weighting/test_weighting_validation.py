"""Strategies that are steered by trusted rows: values by hand, what they promise and keep."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import nnls
from torch import Tensor

from polyqwen.weighting.base import Weighting
from polyqwen.weighting.by_validation.base import TrustedGradientWeighting
from polyqwen.weighting.by_validation.exp_gradient import ExponentiatedGradient, slope
from polyqwen.weighting.by_validation.gate import CosineGate
from polyqwen.weighting.by_validation.nnls_match import GradientMatching
from polyqwen.weighting.by_validation.validation import ValidationWeighting
from polyqwen.weighting.gram import SharedHeadGram
from polyqwen.weighting.weight_update import WeightUpdate
from tests.weighting.gradient_cases import collect

STATIC = {"a": 1.0, "b": 1.0, "c": 1.0}
# lengths 2, 1, 4; cosines to the trusted direction (1, 0): 1, 0.6, -1
GRADIENTS = ((2.0, 0.0), (0.6, 0.8), (-4.0, 0.0))
AIM = (3.0, 0.0)


def told(
    weighting: Weighting,
    gradients: Sequence[Sequence[float]] = GRADIENTS,
    aim: Sequence[float] = AIM,
    rows: Any = (8, 8, 8),
) -> WeightUpdate:
    """An update from gradients as a provider would have collected them."""
    present = torch.tensor(rows)[:, None] > 0
    collect(weighting.gram, torch.tensor(gradients) * present, torch.tensor(aim))
    weighting.observe(torch.ones(3), torch.tensor(rows))
    update = weighting.update(1)
    assert update is not None
    return update


def near(values: Any) -> Any:
    return pytest.approx(list(values), rel=1e-6, abs=1e-9)


def weights(update: WeightUpdate) -> list[float]:
    return list(update.new.values())


def per_share(shares: Sequence[float], lengths: Sequence[float] = (2.0, 1.0, 4.0)) -> list[float]:
    """λ ∝ share / gradient norm, summing to the number of tasks."""
    raw = [share / length for share, length in zip(shares, lengths, strict=True)]
    return [len(raw) * value / sum(raw) for value in raw]


def test_gate() -> None:
    update = told(CosineGate(static=STATIC, gram=SharedHeadGram(), smoothing=0.0))
    assert list(update.causes["agreement"].values()) == near([1.0, 0.6, -1.0])
    assert weights(update) == near(per_share([1.0, 0.6, 0.0]))
    sign = told(CosineGate(static=STATIC, gram=SharedHeadGram(), mode="sign", smoothing=0.0))
    assert weights(sign) == near(per_share([1.0, 1.0, 0.0]))


def test_nobody_helps() -> None:
    for kind in (CosineGate, GradientMatching):
        update = told(
            kind(static=STATIC, gram=SharedHeadGram()), aim=(0.0, -1.0), gradients=[(1.0, 0.5)] * 3
        )
        assert update.new == STATIC and "no task helps" in update.reason


def test_matching_by_hand_and_by_scipy() -> None:
    exact = told(GradientMatching(static=STATIC, gram=SharedHeadGram(), ridge=0.0, smoothing=0.0))
    assert weights(exact) == near([3.0, 0.0, 0.0])  # a alone points there
    aim = (1.0, 1.0)
    update = told(
        GradientMatching(static=STATIC, gram=SharedHeadGram(), ridge=0.0, smoothing=0.0), aim=aim
    )
    directions = torch.nn.functional.normalize(torch.tensor(GRADIENTS), dim=-1)
    share, _ = nnls(directions.T.numpy(), (torch.tensor(aim) / math.sqrt(2)).numpy())
    assert (share > 0).sum() == 2 and weights(update) == near(per_share(share.tolist()))


def test_the_ridge_shares_among_those_who_say_the_same() -> None:
    twins = ((2.0, 0.0), (2.0, 0.0), (0.0, 1.0))
    update = told(
        GradientMatching(static=STATIC, gram=SharedHeadGram(), ridge=0.1), gradients=twins
    )
    assert weights(update) == near([1.5, 1.5, 0.0])


def test_exponentiated_gradient_by_hand() -> None:
    weighting = ExponentiatedGradient(
        static=STATIC, gram=SharedHeadGram(), rate=0.5, floor=0.1, smoothing=0.0
    )
    update = told(weighting)
    # equal shares mix to m = (0.2, 0.8 / 3), 1/3 long; slope: r / |m| − (u · m)(m · aim) / |m|³
    slopes = (3.0 - 0.2 * 0.2 * 27, 1.8 - (1 / 3) * 0.2 * 27, -3.0 + 0.2 * 0.2 * 27)
    assert slopes == pytest.approx((1.92, 0.0, -1.92))
    steps = [math.exp(0.5 * value) for value in slopes]
    expected = [0.9 * step / sum(steps) + 0.1 / 3 for step in steps]
    assert list(update.causes["share"].values()) == near(expected)
    assert weights(update) == near(per_share(expected))
    for _ in range(60):
        share = list(told(weighting).causes["share"].values())
    assert sum(share) == pytest.approx(1.0) and min(share) >= 0.1 / 3
    unit = torch.tensor([(1.0, 0.0), (0.6, 0.8), (-1.0, 0.0)], dtype=torch.float64)
    mixed = torch.tensor(share, dtype=torch.float64) @ unit
    assert float(mixed[0] / mixed.norm()) > 0.95  # 0.6 for equal shares


@settings(deadline=None, max_examples=30)
@given(st.lists(st.floats(-2.0, 2.0), min_size=9, max_size=9), st.integers(0, 100))
def test_the_slope_is_that_of_the_cosine(entries: list[float], seed: int) -> None:
    gradients = torch.tensor(entries, dtype=torch.float64).reshape(3, 3) + 0.1 * torch.eye(3)
    unit = torch.nn.functional.normalize(gradients + 1e-3, dim=-1)
    aim = torch.nn.functional.normalize(torch.tensor([1.0, 0.5, -0.2], dtype=torch.float64), dim=0)
    p = torch.rand(3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + 0.2
    p.requires_grad_()
    mixed = p @ unit
    if float(mixed.detach().norm()) < 1e-2:
        return
    (expected,) = torch.autograd.grad(mixed @ aim / mixed.norm(), p)
    assert torch.allclose(slope(p.detach(), unit @ aim, unit @ unit.T), expected, atol=1e-8)


def test_news_is_smoothed_and_absent_tasks_keep_their_past() -> None:
    gate = CosineGate(static=STATIC, gram=SharedHeadGram(), smoothing=0.5)
    told(gate)
    turned = ((-2.0, 0.0), (0.6, 0.8), (-4.0, 0.0))
    update = told(gate, gradients=turned, rows=(8, 0, 8))
    assert update.causes["agreement"] == pytest.approx({"a": 0.0, "c": -1.0})
    assert gate.agreement.tolist() == near([0.0, 0.6, -1.0])
    assert gate.norms.tolist() == near([2.0, 1.0, 4.0])
    assert "no task helps" in update.reason


def test_one_noisy_batch_moves_little_by_default() -> None:
    """Nine parts of the past to one of the news."""
    gate = CosineGate(static=STATIC, gram=SharedHeadGram())
    told(gate)
    told(gate, gradients=((-4.0, 0.0), (0.6, 0.8), (4.0, 0.0)))
    assert gate.agreement.tolist() == near([0.8, 0.6, -0.8])
    assert gate.norms.tolist() == near([2.2, 1.0, 4.0])
    assert gate.similarity[0].tolist() == near([1.0, 0.9 * 0.6 - 0.1 * 0.6, -1.0])


@pytest.mark.parametrize("kind", [CosineGate, ExponentiatedGradient, GradientMatching])
def test_scales_of_losses_do_not_matter(kind: type[TrustedGradientWeighting]) -> None:
    plain = kind(static=STATIC, gram=SharedHeadGram(), normalize="none")  # type: ignore[call-arg]
    scaled = kind(static=STATIC, gram=SharedHeadGram(), normalize="none")  # type: ignore[call-arg]
    aim = (1.0, 1.0)
    ours = weights(told(plain, aim=aim))
    factors = (10.0, 0.1, 3.0)
    larger = [[f * x for x in g] for f, g in zip(factors, GRADIENTS, strict=True)]
    theirs = weights(told(scaled, gradients=larger, aim=[7 * x for x in aim]))
    steps = [w * math.hypot(*g) for w, g in zip(ours, GRADIENTS, strict=True)]
    others = [w * math.hypot(*g) for w, g in zip(theirs, larger, strict=True)]
    assert near(s / sum(steps) for s in steps) == [o / sum(others) for o in others]


@pytest.mark.parametrize("kind", [CosineGate, ExponentiatedGradient, GradientMatching])
@pytest.mark.parametrize(
    "gradients",
    [
        ((1.0, 0.0), (1.0, 0.0), (1.0, 0.0)),
        ((1.0, 0.0), (-1.0, 0.0), (1e-6, 0.0)),
        ((0.0, 0.0), (1.0, 1.0), (0.0, 0.0)),
        ((1e8, 0.0), (1e-8, 1e-8), (1.0, 1.0)),
    ],
)
def test_degenerate_gradients_give_finite_weights(kind: Any, gradients: Any) -> None:
    weighting = kind(static=STATIC, gram=SharedHeadGram())
    for aim in (AIM, (0.0, 0.0)):
        update = told(weighting, gradients=gradients, aim=aim)
        assert all(math.isfinite(w) and w >= 0.0 for w in weights(update))
        assert sum(weights(update)) > 0.0


def test_weights_from_trusted_losses() -> None:
    weighting = ValidationWeighting(STATIC, temperature=0.5)

    def seen(losses: Sequence[float], rows: Any = (8, 8, 8)) -> WeightUpdate:
        weighting.observe(torch.ones(3), torch.tensor(rows))
        update = weighting.update(1, torch.tensor(losses))
        assert update is not None
        return update

    assert weights(seen((4.0, 2.0, 1.0))) == near([1.0, 1.0, 1.0])
    left = (0.5, 1.0, 1.2)
    soft = [math.exp(value / 0.5) for value in left]
    update = seen((2.0, 2.0, 1.2))
    assert weights(update) == near(3 * s / sum(soft) for s in soft)
    held = seen((2.0, math.nan, 1.2))  # b has no trusted rows
    assert held.new["b"] == update.new["b"]
    assert set(held.causes["left"]) == {"a", "c"}


def test_trusted_objective_is_the_mean_over_tasks_with_rows() -> None:
    losses: Tensor = torch.tensor([1.0, math.nan, 5.0])
    assert float(CosineGate(static=STATIC, gram=SharedHeadGram()).trusted_objective(losses)) == 3.0


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: CosineGate(static=STATIC, gram=SharedHeadGram(), mode="soft"), "cosine, sign"),
        (lambda: CosineGate(static=STATIC, gram=SharedHeadGram(), smoothing=1.0), "smoothing"),
        (lambda: GradientMatching(static=STATIC, gram=SharedHeadGram(), ridge=-1.0), "ridge"),
        (lambda: ExponentiatedGradient(static=STATIC, gram=SharedHeadGram(), rate=0.0), "rate"),
        (lambda: ExponentiatedGradient(static=STATIC, gram=SharedHeadGram(), floor=1.0), "floor"),
        (lambda: ValidationWeighting(STATIC, temperature=0.0), "temperature"),
    ],
)
def test_refuses(make: Callable[[], Weighting], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make()
