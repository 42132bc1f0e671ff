"""Schedules: values by hand, ends, and refused arguments."""

import math
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polyqwen.losses.info_nce import InfoNCELoss
from polyqwen.training import schedules
from polyqwen.training.callbacks.schedules import GradientClipSchedule, LossWarmup, TaskBoost


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (lambda: schedules.linear(0, 0.1, 0.07, 2000), 0.1),
        (lambda: schedules.linear(1000, 0.5, 3.0, 2000), 1.75),
        (lambda: schedules.linear(9999, 0.5, 3.0, 2000), 3.0),
        (lambda: schedules.linear(-5, 0.5, 3.0, 2000), 0.5),
        (lambda: schedules.linear(0, 0.5, 3.0, 0), 3.0),
        (lambda: schedules.cosine(0, 50.0, 5.0, 2000), 50.0),
        (lambda: schedules.cosine(500, 50.0, 5.0, 2000), 5.0 + 45.0 * (1 + math.sqrt(0.5)) / 2),
        (lambda: schedules.cosine(1000, 50.0, 5.0, 2000), 27.5),
        (lambda: schedules.cosine(2001, 50.0, 5.0, 2000), 5.0),
        (lambda: schedules.warmup_cosine(0, 3, 11), 0.25),
        (lambda: schedules.warmup_cosine(2, 3, 11), 0.75),
        (lambda: schedules.warmup_cosine(3, 3, 11), 1.0),
        (lambda: schedules.warmup_cosine(7, 3, 11), 0.5),
        (lambda: schedules.warmup_cosine(11, 3, 11), 0.0),
        (lambda: schedules.warmup_cosine(99, 3, 11, final=0.1), 0.1),
        (lambda: schedules.warmup_cosine(0, 0, 10), 1.0),
        (lambda: schedules.decay_from_switch(1999, 2000, 2.0, 500), 1.0),
        (lambda: schedules.decay_from_switch(2000, 2000, 2.0, 500), 2.0),
        (lambda: schedules.decay_from_switch(2250, 2000, 2.0, 500), 1.5),
        (lambda: schedules.decay_from_switch(2500, 2000, 2.0, 500), 1.0),
        (lambda: schedules.decay_from_switch(9000, 2000, 2.0, 500), 1.0),
        (lambda: schedules.decay_from_switch(5, None, 2.0, 500), 1.0),
        (lambda: schedules.decay_from_switch(5, 5, 2.0, 0), 1.0),
    ],
)
def test_value(call: Callable[[], float], expected: float) -> None:
    assert call() == pytest.approx(expected, abs=1e-12)


@settings(deadline=None)
@given(st.integers(-10, 300), st.floats(-5, 5), st.floats(-5, 5), st.integers(0, 200))
def test_ramps_stay_between_their_ends(step: int, start: float, end: float, steps: int) -> None:
    low, high = min(start, end) - 1e-9, max(start, end) + 1e-9
    assert low <= schedules.linear(step, start, end, steps) <= high
    assert low <= schedules.cosine(step, start, end, steps) <= high


@settings(deadline=None)
@given(st.integers(0, 50), st.integers(1, 200))
def test_learning_rate_rises_then_falls(warmup: int, rest: int) -> None:
    total = warmup + rest
    rates = [schedules.warmup_cosine(step, warmup, total) for step in range(total + 1)]
    assert rates[0] > 0.0 and rates[warmup] == 1.0 and rates[total] == pytest.approx(0.0)
    assert rates[: warmup + 1] == sorted(rates[: warmup + 1])
    assert rates[warmup:] == sorted(rates[warmup:], reverse=True)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: schedules.linear(0, 0.0, 1.0, -1), "-1"),
        (lambda: schedules.cosine(0, 0.0, 1.0, -2), "-2"),
        (lambda: schedules.curve("square")(0, 0.0, 1.0, 1), "'linear', 'cosine'"),
        (lambda: schedules.warmup_cosine(0, 10, 10), "warmup_steps=10"),
        (lambda: schedules.warmup_cosine(0, -1, 10), "warmup_steps=-1"),
        (lambda: schedules.warmup_cosine(0, 1, 10, final=2.0), "final"),
        (lambda: schedules.decay_from_switch(0, 5, 0.0, 10), "factor"),
        (lambda: schedules.decay_from_switch(0, 5, 2.0, -10), "-10"),
    ],
)
def test_refuses(call: Callable[[], float], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        call()


@pytest.mark.parametrize(
    ("shape", "values"),
    [
        ("linear", {1999: 1.0, 2000: 2.0, 2125: 1.75, 2250: 1.5, 2499: 1.002, 2500: 1.0}),
        ("step", {1999: 1.0, 2000: 2.0, 2125: 2.0, 2250: 2.0, 2499: 2.0, 2500: 1.0}),
        ("cosine", {1999: 1.0, 2000: 2.0, 2125: 1.5 + math.sqrt(0.125), 2250: 1.5, 2500: 1.0}),
    ],
)
def test_a_boost_goes_back_in_its_shape(shape: schedules.Shape, values: dict[int, float]) -> None:
    for step, value in values.items():
        boost = schedules.decay_from_switch(step, 2000, 2.0, 500, shape)
        assert boost == pytest.approx(value, abs=1e-12)
    assert schedules.decay_from_switch(5, 5, 2.0, 0, shape) == 1.0
    with pytest.raises(ValueError, match="square"):
        schedules.decay_from_switch(0, 5, 2.0, 10, "square")  # type: ignore[arg-type]


def test_callbacks_tell_what_they_will_move_and_move_it() -> None:
    """A line for the losses that end at one value; nothing where there is no effect."""
    losses = {"a": InfoNCELoss(0.02), "b": InfoNCELoss(0.07), "c": InfoNCELoss(0.07)}
    warmup = LossWarmup("temperature", start=0.1, steps=40)
    assert warmup.describe(losses) == [
        ("temperature", "a", 0.1, 0.02, 0, 40),
        ("temperature", "b, c", 0.1, 0.07, 0, 40),
    ]
    assert LossWarmup("temperature", 0.1, 40, losses=["b"]).describe(losses)[0].of == "b"
    assert LossWarmup("score_weight", 0.1, 40).describe(losses) == []
    (clip,) = GradientClipSchedule(50.0, 5.0, 30).describe(losses)
    assert (clip.start, clip.end, clip.steps) == (50.0, 5.0, 30)
    assert GradientClipSchedule(50.0, None, 30).describe(losses) == []
    boost = TaskBoost("b", 10, 2.0, 20)
    (line,) = boost.describe(losses)
    assert line == ("boost", "b", 2.0, 1.0, 10, 20)
    assert (boost.at(9), boost.at(10), boost.at(30)) == (1.0, line.start, line.end)
    assert TaskBoost("b", None).describe(losses) == TaskBoost("x", 10).describe(losses) == []
