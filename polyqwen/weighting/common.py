"""Argument checks with one wording for all strategies, and seeds that follow from the step."""

import math
from collections.abc import Mapping

import torch


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


def step_seed(seed: int, step: int) -> int:
    """A seed that depends on the run's seed and the step alone, so that it needs no state."""
    return (seed * 1_000_003 + step) % 2**63


def step_generator(seed: int, step: int) -> torch.Generator:
    """A generator with `step_seed`."""
    return torch.Generator().manual_seed(step_seed(seed, step))
