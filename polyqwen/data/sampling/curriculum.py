"""The curriculum: which share of a step each task has, as a function of the optimizer step.

`Curriculum` holds the phases; the functions make the usual ones.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

_KEYS = {"name", "steps", "shares", "ramp_steps"}
SharesOver = Literal["phase", "run"]


class Phase(NamedTuple):
    """A stretch of steps with constant target shares.

    Attributes:
        name: name of the phase.
        start: first absolute optimizer step.
        stop: first step after it.
        ramp_steps: steps over which it is blended in; 0 is a hard switch.
        shares: one share per task in the curriculum's order, summing to 1.
    """

    name: str
    start: int
    stop: int
    ramp_steps: int
    shares: tuple[float, ...]


class Curriculum:
    """Phases of training, counted in absolute optimizer steps.

    Inside a phase's ramp the shares are ``(1 - r) · before + r · own`` with
    ``r = (step - start) / ramp_steps``: a new task's share rises linearly from 0 and the others
    make room (curriculum learning: Bengio et al. 2009).

    Args:
        tasks: task -> share, >= 0, any scale (e.g. millions of rows); fixes the order of tasks.
        phases: mappings with ``name``, ``steps`` (> 0; None only in the last phase, filled from
            ``total_steps``), ``shares`` (task -> share, tasks left out get 0; None: all of
            ``tasks`` as they are) and ``ramp_steps`` (default: the argument below).
        total_steps: absolute step at which training ends; None: the sum of the phases.
        ramp_steps: default ramp of every phase but the first.
        start_step: absolute step at which the run begins, e.g. the switch for phase 2 alone.

    Raises:
        ValueError: a key, task name, share or length is out of range.
    """

    def __init__(
        self,
        tasks: Mapping[str, float],
        phases: Sequence[Mapping[str, Any]],
        total_steps: int | None = None,
        ramp_steps: int = 0,
        start_step: int = 0,
    ) -> None:
        if not phases:
            raise ValueError("curriculum.phases is empty; give at least one phase")
        self.tasks = tuple(tasks)
        self._default = dict(tasks)
        self.phases: list[Phase] = []
        for phase in phases:
            last = len(self.phases) == len(phases) - 1
            self.phases.append(self._read(phase, total_steps if last else None, ramp_steps))
        self.total_steps = self.phases[-1].stop
        if total_steps not in (None, self.total_steps):
            raise ValueError(
                f"curriculum.total_steps is {total_steps} but the phases end at "
                f"{self.total_steps}; leave the last phase's steps empty (null)"
            )
        if not 0 <= start_step < self.total_steps:
            raise ValueError(
                f"curriculum.start_step must be in [0, {self.total_steps}), got {start_step}"
            )
        self.start_step = start_step
        self._starts = np.array([phase.start for phase in self.phases])
        self._ramps = np.array([phase.ramp_steps for phase in self.phases])
        self._shares = np.array([phase.shares for phase in self.phases])  # (phases, T)

    @property
    def switch_step(self) -> int | None:
        """First step of the second phase, or None if there is one phase only."""
        return self.phases[1].start if len(self.phases) > 1 else None

    def phase(self, step: int) -> Phase:
        """The phase ``step`` belongs to; the last one for steps after the end."""
        return self.phases[self._index(np.array([step]))[0]]

    def shares(self, step: int) -> NDArray[np.float64]:
        """Shares at ``step``, (T,), summing to 1."""
        return self.share_table(step, step + 1)[0]

    def share_table(self, start: int, stop: int) -> NDArray[np.float64]:
        """Shares at the steps ``start … stop - 1``, (S, T), rows summing to 1."""
        steps = np.arange(start, stop)
        index = self._index(steps)
        ramps = self._ramps[index]
        ratio = (steps - self._starts[index]) / np.maximum(ramps, 1)
        ratio = np.where(ramps > 0, np.minimum(ratio, 1.0), 1.0)[:, None]  # (S, 1)
        return (1.0 - ratio) * self._shares[np.maximum(index - 1, 0)] + ratio * self._shares[index]

    def _index(self, steps: NDArray[np.int64]) -> NDArray[np.int64]:
        if steps.size and steps[0] < 0:
            raise ValueError(f"step must be >= 0, got {steps[0]}; steps are absolute")
        return np.searchsorted(self._starts, steps, side="right") - 1

    def _read(self, phase: Mapping[str, Any], total: int | None, ramp_steps: int) -> Phase:
        first = not self.phases
        start = 0 if first else self.phases[-1].stop
        name = phase.get("name") or f"phase{len(self.phases) + 1}"
        where = f"curriculum phase '{name}'"
        if unknown := set(phase) - _KEYS:
            raise ValueError(f"{where}: unknown keys {sorted(unknown)}; use {sorted(_KEYS)}")
        steps = phase.get("steps")
        stop = total if steps is None else start + int(steps)
        if stop is None:
            raise ValueError(
                f"{where}: steps is empty; give a number, or total_steps if it is the last phase"
            )
        if stop <= start:
            raise ValueError(f"{where}: must have steps > 0, but runs from {start} to {stop}")
        ramp = phase.get("ramp_steps")
        ramp = (0 if first else ramp_steps) if ramp is None else ramp
        if not 0 <= ramp <= (0 if first else stop - start):
            reason = "the first phase has nothing to ramp from" if first else "at most its steps"
            raise ValueError(f"{where}: ramp_steps is {ramp}; {reason}")
        return Phase(name, start, stop, ramp, self._normalised(phase.get("shares"), where))

    def _normalised(self, shares: Mapping[str, float] | None, where: str) -> tuple[float, ...]:
        shares = self._default if shares is None else shares
        if unknown := set(shares) - set(self.tasks):
            raise ValueError(
                f"{where}: shares name unknown tasks {sorted(unknown)}; tasks: {list(self.tasks)}"
            )
        if not all(share >= 0.0 and math.isfinite(share) for share in shares.values()):
            raise ValueError(f"{where}: shares must be finite and >= 0, got {dict(shares)}")
        total = sum(shares.values())
        if total <= 0.0:
            raise ValueError(f"{where}: all shares are 0; give at least one task a share > 0")
        return tuple(shares.get(task, 0.0) / total for task in self.tasks)


def two_phase(
    tasks: Mapping[str, float],
    *,
    switch_step: int,
    total_steps: int,
    start_step: int = 0,
    ramp_steps: int = 0,
    foundation: Sequence[str] = ("text_pair",),
    shares_over: SharesOver = "phase",
) -> Curriculum:
    """The paper's curriculum: the foundation tasks alone, then all (viPolyQwen, section 3.3).

    With ``shares_over="run"`` the shares are those of all rows of the whole run, and the second
    phase makes up for what the first one took: with S steps, the switch at step s, shares p_t of
    all tasks and f_t of the first phase, its shares are ``(S · p_t − s · f_t) / (S − s)``. So a run
    whose shares are the tasks' numbers of rows passes over each of them equally often. A ramp is
    not made up for.

    Args:
        tasks: task -> share of a mixed batch.
        switch_step: first step with all tasks; 0 has no first phase.
        total_steps: absolute step at which training ends; not above ``switch_step``: phase 1 alone.
        start_step: absolute step at which the run begins; ``switch_step``: phase 2 alone.
        ramp_steps: steps over which the new tasks' shares rise.
        foundation: tasks of the first phase; with none of them in the run there is no such phase.
        shares_over: "phase": shares are those of the second phase; "run": of the whole run.

    Raises:
        ValueError: ``shares_over="run"`` and the first phase takes more than a task's share.
    """
    first = {task: share for task, share in tasks.items() if task in foundation}
    if switch_step == 0 or not first:
        return single_phase(tasks, total_steps=total_steps, start_step=start_step)
    alone: dict[str, Any] = {
        "name": "foundation",
        "steps": min(switch_step, total_steps),
        "shares": first,
    }
    if total_steps <= switch_step:
        return Curriculum(tasks, [alone], total_steps, start_step=start_step)
    run = shares_over == "run"
    second: dict[str, Any] = {
        "name": "balance",
        "steps": None,
        "shares": _left_for_phase_two(tasks, first, switch_step, total_steps) if run else None,
        "ramp_steps": ramp_steps,
    }
    return Curriculum(tasks, [alone, second], total_steps, start_step=start_step)


def _left_for_phase_two(
    tasks: Mapping[str, float], first: Mapping[str, float], switch_step: int, total_steps: int
) -> dict[str, float]:
    """Steps' worth of rows that each task still has to get after the switch."""
    whole, foundation = sum(tasks.values()), sum(first.values())
    rest = {}
    for task, share in tasks.items():
        taken = switch_step * first.get(task, 0.0) / foundation
        rest[task] = total_steps * share / whole - taken
        if rest[task] < 0.0:
            raise ValueError(
                f"curriculum.switch_step={switch_step} gives {task} more than its share of all "
                f"{total_steps} steps; lower phase1_steps, raise total_steps or "
                f"tasks.{task}.share, or use shares_over=phase"
            )
    return rest


def single_phase(
    tasks: Mapping[str, float], *, total_steps: int, start_step: int = 0
) -> Curriculum:
    """All tasks from the first step on.

    Args:
        tasks: task -> share of a batch.
        total_steps: absolute step at which training ends.
        start_step: absolute step at which the run begins.
    """
    return Curriculum(tasks, [{"name": "balance"}], total_steps, start_step=start_step)


def staged(
    tasks: Mapping[str, float],
    *,
    starts: Mapping[str, int] | None,
    total_steps: int,
    switch_step: int | None = None,
    start_step: int = 0,
    ramp_steps: int = 0,
) -> Curriculum:
    """Tasks one after another, e.g. from easy to hard (Bengio et al. 2009, curriculum learning).

    Args:
        tasks: task -> share once it is on.
        starts: task -> first step with it, >= 0; tasks left out, or all for None, are on from the
            first.
        total_steps: absolute step at which training ends.
        switch_step: the start that schedules and boosts take as the switch; None for none.
        start_step: absolute step at which the run begins.
        ramp_steps: steps over which a new task's share rises; cut to the length of its phase.

    Raises:
        ValueError: an unknown task, a start outside of the run, or no task at step 0.
    """
    starts = starts or {}
    if unknown := sorted(set(starts) - set(tasks)):
        raise ValueError(f"curriculum.starts name {unknown}; the run's tasks are {list(tasks)}")
    for task, start in starts.items():
        if not 0 <= start < total_steps:
            raise ValueError(
                f"curriculum.starts.{task} must be in [0, {total_steps}), got {start}; drop the "
                "task to leave it out"
            )
    begins = {task: starts.get(task, 0) for task in tasks}
    edges = sorted(set(begins.values()))
    if edges[0] > 0:
        raise ValueError(f"curriculum.starts leave no task for step 0: {dict(begins)}")
    if switch_step not in (None, 0, *edges):
        raise ValueError(f"curriculum.switch_step must be one of {edges}, got {switch_step}")
    phases: list[dict[str, Any]] = []
    for edge, end in zip(edges, [*edges[1:], total_steps], strict=True):
        phases.append(
            {
                "name": "+".join(task for task in tasks if begins[task] == edge),
                "steps": end - edge,
                "shares": {task: share for task, share in tasks.items() if begins[task] <= edge},
                "ramp_steps": min(ramp_steps, end - edge) if edge else 0,
            }
        )
    return Curriculum(tasks, phases, total_steps, start_step=start_step)
