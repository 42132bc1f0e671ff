"""Schedules: pure functions of the optimizer step.

Every function takes the absolute optimizer step first and is constant outside its range, so a run
that starts late or goes on longer than planned reads a defined value. There is no state: a resumed
run reads what an uninterrupted one would have read.
"""

import math
from collections.abc import Callable
from typing import Literal, get_args

Shape = Literal["linear", "cosine", "step"]
Curve = Callable[[int, float, float, int], float]  # step, start, end, steps


def linear(step: int, start: float, end: float, steps: int) -> float:
    """Moves from ``start`` at step 0 to ``end`` at step ``steps`` on a straight line.

    Args:
        step: optimizer step.
        start: value at step 0 and before.
        end: value at step ``steps`` and after.
        steps: length of the way, >= 0; 0 means ``end`` from step 0 on.
    """
    progress = _progress(step, steps)
    return (1.0 - progress) * start + progress * end


def cosine(step: int, start: float, end: float, steps: int) -> float:
    """Moves from ``start`` to ``end`` along half a cosine: slow, fast, slow.

    ``end + (start - end) · (1 + cos(π · step / steps)) / 2`` (Loshchilov & Hutter 2017,
    arXiv 1608.03983, without restarts). Arguments as in `linear`.
    """
    wave = (1.0 + math.cos(math.pi * _progress(step, steps))) / 2.0
    return wave * start + (1.0 - wave) * end


def staircase(step: int, start: float, end: float, steps: int) -> float:
    """Stays at ``start`` and jumps to ``end`` at step ``steps``. Arguments as in `linear`."""
    return start if _progress(step, steps) < 1.0 else end


def curve(shape: Shape) -> Curve:
    """The function (step, start, end, steps) -> value of a shape.

    Raises:
        ValueError: an unknown shape.
    """
    curves: dict[str, Curve] = {"linear": linear, "cosine": cosine, "step": staircase}
    if shape not in curves:
        raise ValueError(f"a schedule's shape must be one of {get_args(Shape)}, got {shape!r}")
    return curves[shape]


def warmup_cosine(step: int, warmup_steps: int, total_steps: int, final: float = 0.0) -> float:
    """Learning-rate multiplier: linear warmup to 1, then a cosine down to ``final``.

    ``(step + 1) / (warmup_steps + 1)`` while ``step < warmup_steps``, 1 at ``warmup_steps``,
    ``final`` from ``total_steps`` on. The first update has a rate above zero: a warmup counted from
    exactly zero would waste it.

    Args:
        step: optimizer step since the start of the *run*, not of the curriculum.
        warmup_steps: 0 <= warmup_steps < total_steps.
        total_steps: steps of the run, > 0.
        final: multiplier at the end, in [0, 1].

    Raises:
        ValueError: a length or ``final`` is out of range.
    """
    if not 0 <= warmup_steps < total_steps:
        raise ValueError(
            f"warmup_steps must be >= 0 and below total_steps, got warmup_steps={warmup_steps} "
            f"and total_steps={total_steps}; shorten the warmup or lengthen the run"
        )
    if not 0.0 <= final <= 1.0:
        raise ValueError(f"final must be in [0, 1], got {final}; it multiplies the peak rate")
    if step < warmup_steps:
        return (max(step, 0) + 1) / (warmup_steps + 1)
    return cosine(step - warmup_steps, 1.0, final, total_steps - warmup_steps)


def decay_from_switch(
    step: int,
    switch_step: int | None,
    factor: float,
    boost_steps: int,
    shape: Shape = "linear",
) -> float:
    """Boost of a task at a phase switch: ``factor`` there, 1 from ``boost_steps`` later on.

    In between, with x = (step - switch_step) / boost_steps: "linear" goes down on a straight line,
    ``1 + (factor - 1) · (1 - x)``; "cosine" on half a cosine, ``1 + (factor - 1) · (1 + cos πx) /
    2``; "step" stays at ``factor``. Before the switch it is 1.

    Args:
        step: absolute optimizer step.
        switch_step: first step of the new phase; None (no switch) gives 1 at every step.
        factor: value at the switch, > 0; 1 is no boost.
        boost_steps: steps until the boost is gone, >= 0; 0 is no boost.
        shape: of the way back, "linear", "step" or "cosine".

    Raises:
        ValueError: ``factor``, ``boost_steps`` or ``shape`` is out of range.
    """
    if factor <= 0.0:
        raise ValueError(f"factor must be > 0, got {factor}; use 1.0 for no boost")
    if switch_step is None or step < switch_step:
        curve(shape)(0, factor, 1.0, boost_steps)  # checks the arguments all the same
        return 1.0
    return curve(shape)(step - switch_step, factor, 1.0, boost_steps)


def _progress(step: int, steps: int) -> float:
    if steps < 0:
        raise ValueError(f"steps of a schedule must be >= 0, got {steps}; 0 means at once")
    return 1.0 if steps == 0 else min(max(step / steps, 0.0), 1.0)
