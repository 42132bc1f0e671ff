"""β of strategic task weighting: its schedule, and what it acts on."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

MODES = ("loss", "alpha", "learning_rate")
REQUIRED = {"foundation", "balance", "until_step"}
OPTIONAL = {"mode", "tasks"}


class Beta(NamedTuple):
    """One value before a step and another from it on, and what is multiplied by it.

    Attributes:
        foundation: β before ``until_step``, > 0.
        balance: β from it on, > 0.
        until_step: absolute optimizer step; None: ``foundation`` throughout.
        mode: "loss", "alpha" or "learning_rate", see `StrategicTaskWeighting`.
        tasks: the foundation tasks, whose α is multiplied with mode "alpha".
    """

    foundation: float
    balance: float
    until_step: int | None
    mode: str = "loss"
    tasks: tuple[str, ...] = ()

    def at(self, step: int) -> float:
        """β at an absolute optimizer step."""
        before = self.until_step is None or step < self.until_step
        return self.foundation if before else self.balance

    @property
    def acts_on(self) -> str:
        """For the log: what β multiplies, where that is not the loss."""
        names = {"alpha": f"alpha of {', '.join(self.tasks)}", "learning_rate": "the learning rate"}
        return f" on {names[self.mode]}" if self.mode in names else ""


def read_beta(given: Mapping[str, Any], tasks: Sequence[str], normalized: bool) -> Beta:
    """β from its keys.

    Args:
        given: ``foundation``, ``balance``, ``until_step``; optional ``mode`` and ``tasks``, whose
            names of tasks that do not take part are ignored.
        tasks: of the run.
        normalized: whether weights are scaled to a sum after β has acted on α.

    Raises:
        ValueError: a key is missing or unknown, or a value out of its range; with mode "alpha"
            also where β would leave all ratios of weights as they are.
    """
    keys = set(given)
    if not REQUIRED <= keys <= REQUIRED | OPTIONAL:
        raise ValueError(
            f"weighting.beta must be a mapping of {sorted(REQUIRED)} and perhaps "
            f"{sorted(OPTIONAL)}, got {dict(given)!r}"
        )
    for name in ("foundation", "balance"):
        _check(_is_number(given[name]) and 0.0 < given[name] < math.inf, name, given, "> 0, finite")
    until, mode = given["until_step"], given.get("mode", "loss")
    _check(until is None or (_is_number(until) and until >= 0), "until_step", given, ">= 0 or null")
    _check(mode in MODES, "mode", given, f"one of {', '.join(MODES)}")
    named = given.get("tasks") or ()
    _check(not isinstance(named, str), "tasks", given, "a list of tasks")
    foundation = tuple(task for task in named if task in tasks)
    most = len(tasks) - 1 if normalized else len(tasks)  # a common factor is scaled away
    if mode == "alpha" and not 0 < len(foundation) <= most:
        raise ValueError(
            f"weighting.beta.tasks={list(named)} names {len(foundation)} of the run's "
            f"{len(tasks)} tasks {list(tasks)}, so beta.mode=alpha would change no ratio of "
            "weights; name some of them, not all, or choose beta.mode=loss or learning_rate"
        )
    return Beta(
        foundation=given["foundation"],
        balance=given["balance"],
        until_step=None if until is None else int(until),
        mode=mode,
        tasks=foundation,
    )


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _check(valid: bool, name: str, given: Mapping[str, Any], allowed: str) -> None:
    if not valid:
        raise ValueError(f"weighting.beta.{name} must be {allowed}, got {given[name]!r}")
