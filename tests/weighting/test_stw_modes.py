"""STW: the sum under limits, the calibrated fallback, and what beta acts on."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from polyqwen.weighting.by_loss.calibrated import CalibratedWeighting
from polyqwen.weighting.by_loss.stw import StrategicTaskWeighting
from polyqwen.weighting.by_loss.stw_learned import LearnedStrategicTaskWeighting
from polyqwen.weighting.weight_update import WeightUpdate

STATIC = {"a": 1.0, "b": 1.0, "c": 1.2}
BETA = {"foundation": 1.2, "balance": 0.9, "until_step": 5}


def stw(**changes: Any) -> StrategicTaskWeighting:
    free = {"min_samples": 1, "loss_floor": 1e-3, "rate_limit": None}
    settings = {"static": STATIC, "alpha": {"a": 0.27}, "beta": BETA}
    return StrategicTaskWeighting(**(settings | free | changes))


def step(
    weighting: StrategicTaskWeighting | CalibratedWeighting,
    number: int,
    losses: Sequence[float],
    rows: Sequence[int] = (8, 8, 8),
) -> WeightUpdate | None:
    """One optimizer step as `TaskWeigher` makes it."""
    weighting.observe(torch.tensor(losses), torch.tensor(rows))
    weighting.end_step()
    return weighting.update(number + 1) if weighting.due(number) else None


def updated(weighting: StrategicTaskWeighting, number: int, *args: Any) -> WeightUpdate:
    update = step(weighting, number, *args)
    assert update is not None
    return update


# The sum of the weights


SERIES = st.lists(
    st.tuples(st.lists(st.floats(0.0, 50.0), min_size=3, max_size=3), st.sampled_from([7, 3, 6])),
    min_size=1,
    max_size=8,
)


@settings(deadline=None, max_examples=100)
@given(SERIES, st.sampled_from([None, 1.5, 1.05]), st.sampled_from([0, 3, None]))
def test_seen_tasks_sum_to_their_number_where_the_limits_leave_room(
    series: list[tuple[list[float], int]], rate: float | None, handover: int | None
) -> None:
    weighting = stw(rate_limit=rate, handover=handover, eval_steps=1, bounds=(0.05, 5.0))
    for number, (losses, mask) in enumerate(series):
        seen = torch.tensor([bool(mask & 1 << task) for task in range(3)])
        old = weighting.base.clone()
        update = updated(weighting, number, losses, tuple((8 * seen).tolist()))
        assert update.reason.startswith("inverse loss")
        new = weighting.base
        low = (old / (rate or torch.inf)).clamp_min(0.05)
        high = (old * (rate or torch.inf)).clamp_max(5.0)
        assert ((new >= low) & (new <= high)).all()
        assert torch.equal(new[~seen], old[~seen])
        room = (float(low[seen].sum()), float(high[seen].sum()))
        nearest = min(max(float(seen.sum()), room[0]), room[1])
        assert float(new[seen].sum()) == pytest.approx(nearest, rel=1e-9)


def test_the_reports_losses_sum_to_four_from_the_first_update_on() -> None:
    static = {"text_pair": 1.0, "ocr": 1.0, "vqa_single": 1.0, "vqa_multi": 1.2}
    weighting = stw(static=static, alpha={"text_pair": 0.27}, rate_limit=1.5, eval_steps=1)
    plain = stw(static=static, alpha={"text_pair": 0.27}, eval_steps=1)
    for number in range(12):
        update = updated(weighting, number, (4.2, 1.2, 1.0, 1.1), (8, 8, 8, 8))
        aim = updated(plain, number, (4.2, 1.2, 1.0, 1.1), (8, 8, 8, 8)).new
        assert sum(update.new.values()) == pytest.approx(4.0, rel=1e-12)
        others = [update.new[task] / aim[task] for task in ("ocr", "vqa_single", "vqa_multi")]
        if number and "ocr" not in update.notes:
            assert others == pytest.approx([others[0]] * 3)  # proportions as in the formula
    assert update.new == pytest.approx(aim) and update.notes == {}


def test_on_the_way_to_the_fallback_weights_sum_to_theirs() -> None:
    weighting = stw(rate_limit=1.5, eval_steps=1)
    for number in range(8):
        updated(weighting, number, (4.0, 1.0, 0.5))
    for number in range(8, 20):
        update = updated(weighting, number, (4.0, 1.0, 0.5), (8, 0, 0))
        assert sum(update.new.values()) == pytest.approx(3.2)
    assert update.new == pytest.approx(STATIC)


# The calibrated fallback


def test_the_calibrated_fallback_is_what_calibrated_weighting_finds() -> None:
    ours = stw(fallback="calibrated", calibration_steps=3, eval_steps=4)
    theirs = CalibratedWeighting(STATIC, steps=3, loss_floor=1e-3)
    losses = torch.rand(9, 3, generator=torch.Generator().manual_seed(0)) + 0.1
    reasons = []
    for number, values in enumerate(losses.tolist()):
        rows = (8, 8 * (number > 1), 24 * (number % 3 > 0))  # the tasks come in one after another
        update = step(ours, number, values, rows)
        step(theirs, number, values, rows)
        reasons += [update.reason] if update else []
    assert all(reason.startswith("inverse loss") for reason in reasons) and len(reasons) == 2
    for number in range(9, 16):  # the last whole window has one task
        update = step(ours, number, (5.0, 1.0, 1.0), (8, 0, 0))
    assert update is not None
    assert update.reason.startswith("calibrated weights: 1 tasks seen, 2 needed")
    assert list(update.new.values()) == pytest.approx(theirs.base.tolist(), rel=1e-12)
    assert sum(update.new.values()) == pytest.approx(3.0)


def test_static_weights_stand_in_until_every_task_had_its_steps() -> None:
    weighting = stw(fallback="calibrated", calibration_steps=2, eval_steps=1)
    for number in range(5):
        update = updated(weighting, number, (2.0, 1.0, 1.0), (8, 0, 0))
        assert update.new == STATIC
        assert update.reason.startswith("static (calibrated after 2 steps of each task, 0 so far)")


def test_calibration_does_not_touch_the_window() -> None:
    with_it, without = stw(fallback="calibrated", eval_steps=6), stw(eval_steps=6)
    for number in range(12):
        losses = (1.0 + number, 2.0, 3.0 / (1 + number))
        updates = [step(weighting, number, losses) for weighting in (with_it, without)]
        assert updates[0] == updates[1]
    assert updates[0] is not None


def test_calibration_goes_on_after_a_restart() -> None:
    def made() -> StrategicTaskWeighting:
        return stw(fallback="calibrated", calibration_steps=4, eval_steps=3)

    through, first = made(), made()
    losses = torch.rand(10, 3, generator=torch.Generator().manual_seed(1)).tolist()
    for number in range(2):
        for weighting in (through, first):
            step(weighting, number, losses[number])
    second = made()
    second.load_state_dict(first.state_dict())
    for number in range(2, 10):
        rows = (8, 8, 8) if number < 6 else (8, 0, 0)
        ours, theirs = (step(w, number, losses[number], rows) for w in (through, second))
        assert ours == theirs
    assert through.calibration is not None and through.calibration.complete
    for name, value in through.state_dict().items():
        assert torch.equal(second.state_dict()[name], value), name


# What beta acts on


def test_beta_on_alpha_moves_the_ratio_and_not_the_sum() -> None:
    weighting = stw(beta=BETA | {"mode": "alpha", "tasks": ["a", "elsewhere"]}, eval_steps=2)
    plain = stw(eval_steps=2)
    for number in range(8):
        step(plain, number, (4.0, 1.0, 0.5))
        if update := step(weighting, number, (4.0, 1.0, 0.5)):
            beta = 1.2 if update.step < 5 else 0.9
            assert update.reason.endswith(f"; beta {beta:g} on alpha of a")
            ours, theirs = weighting.base, plain.base
            assert float(ours.sum()) == pytest.approx(3.0)
            ratio = float(ours[0] / ours[1]) / float(theirs[0] / theirs[1])
            assert ratio == pytest.approx(beta)
            assert float(ours[1] / ours[2]) == pytest.approx(float(theirs[1] / theirs[2]))
    assert torch.equal(weighting.weights(7), weighting.base.float())
    assert weighting.learning_rate_factor(7) == 1.0


def test_beta_on_the_learning_rate_leaves_the_weights_alone() -> None:
    weighting = stw(beta=BETA | {"mode": "learning_rate"}, eval_steps=2)
    plain = stw(eval_steps=2)
    for number in range(8):
        step(plain, number, (4.0, 1.0, 0.5))
        update = step(weighting, number, (4.0, 1.0, 0.5))
        assert update is None or update.reason.endswith("on the learning rate")
        assert torch.equal(weighting.weights(number), plain.base.float())
        assert weighting.learning_rate_factor(number) == (1.2 if number < 5 else 0.9)
        assert plain.learning_rate_factor(number) == 1.0
        assert torch.allclose(plain.weights(number), plain.base.float() * plain.beta(number))


@pytest.mark.parametrize("mode", ["alpha", "learning_rate"])
def test_a_learned_beta_acts_in_the_same_places(mode: str) -> None:
    beta = {"foundation": 1.0, "balance": 1.0, "until_step": None, "mode": mode, "tasks": ["a"]}
    weighting = LearnedStrategicTaskWeighting(
        static=STATIC, alpha={}, beta=beta, alpha_rate=0.0, beta_rate=0.1, min_samples=1,
        rate_limit=None, loss_floor=1e-3,
    )  # fmt: skip
    for trusted in ((1.0, 1.0, 1.0), (0.5, 0.5, 0.5)):
        weighting.observe(torch.ones(3), torch.tensor([8, 8, 8]))
        weighting.update(1, torch.tensor(trusted))
    assert weighting.beta(1) == pytest.approx(1.1)
    ratio = float(weighting.base[0] / weighting.base[1])
    assert ratio == pytest.approx(1.1 if mode == "alpha" else 1.0)
    assert weighting.learning_rate_factor(1) == pytest.approx(1.0 if mode == "alpha" else 1.1)
    assert torch.equal(weighting.weights(1), weighting.base.float())


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: stw(fallback="empirical"), "'static' or 'calibrated'"),
        (lambda: stw(fallback="calibrated", calibration_steps=0), "calibration_steps"),
        (lambda: stw(beta=BETA | {"mode": "both"}), r"beta\.mode must be one of loss, alpha"),
        (lambda: stw(beta=BETA | {"mood": "loss"}), "must be a mapping of"),
        (lambda: stw(beta=BETA | {"foundation": "1.0"}), r"beta\.foundation"),
        (lambda: stw(beta=BETA | {"tasks": "a"}), r"beta\.tasks"),
        (lambda: stw(beta=BETA | {"mode": "alpha"}), "names 0 of the run's 3 tasks"),
        (lambda: stw(beta=BETA | {"mode": "alpha", "tasks": ["x"]}), "change no ratio"),
        (lambda: stw(beta=BETA | {"mode": "alpha", "tasks": ["a", "b", "c"]}), "not all"),
    ],
)
def test_refuses(make: Callable[[], StrategicTaskWeighting], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make()
