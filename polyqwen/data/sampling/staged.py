"""A curriculum of tasks: each is switched on at a step of its own."""

from collections.abc import Mapping
from typing import Any

from polyqwen.data.sampling.curriculum import Curriculum


def staged(
    tasks: Mapping[str, float],
    *,
    starts: Mapping[str, int] | None,
    total_steps: int,
    switch_step: int = 0,
    start_step: int = 0,
    ramp_steps: int = 0,
) -> Curriculum:
    """Tasks one after another, e.g. from easy to hard (Bengio et al. 2009, curriculum learning).

    Args:
        tasks: task -> share once it is on.
        starts: task -> first step with it, >= 0; tasks left out, or all for None, are on from the
            first.
        total_steps: absolute step at which training ends.
        switch_step: the start that schedules and boosts take as the switch; 0 for none.
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
    if switch_step not in (0, *edges):
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
