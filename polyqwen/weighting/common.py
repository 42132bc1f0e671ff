"""Argument checks that all strategies word alike."""

import math
from collections.abc import Mapping


def check(valid: bool, name: str, value: object, allowed: str) -> None:
    """Raises `ValueError` for an argument of a strategy that is out of its range."""
    if not valid:
        raise ValueError(f"weighting.{name} must be {allowed}, got {value!r}")


def check_static(static: Mapping[str, float]) -> None:
    """Raises `ValueError` for static weights of no task, or one that is not a finite number > 0."""
    if not static:
        raise ValueError("weighting.static is empty; give each task a weight")
    for task, weight in static.items():
        if not (weight > 0.0 and math.isfinite(weight)):
            raise ValueError(
                f"weighting.static.{task} must be finite and > 0, got {weight}; "
                "to leave a task out, drop it from the tasks"
            )
