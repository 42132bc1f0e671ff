"""What a plan warns of: one line each, with the key to turn."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from polyqwen.build.plan.rows import Layout
from polyqwen.build.plan.types import PhasePlan, PlanWarning, SchedulePlan, TaskPlan

# Repeated text is worth about as much as new text for 4 passes and next to nothing after some 16
# (Muennighoff et al. 2023, arXiv 2305.16264, language models).
MOST_PASSES = 16
# Batches of fewer contrast a row with too little: with 8 candidates the loss tells log 8 nats at
# most, and most of them are easy.
FEWEST_NEGATIVES = 8
# A share measured on 100 rows has a standard error of .05 at its middle: two recipes that differ by
# less are ranked by chance.
FEWEST_EVALUATED = 100


class Judged(NamedTuple):
    """What the rules look at.

    Attributes:
        values: the resolved configuration.
        layout: of the steps.
        phases: as planned.
        tasks: as planned.
        schedules: as planned.
    """

    values: Mapping[str, Any]
    layout: Layout
    phases: Sequence[PhasePlan]
    tasks: Sequence[TaskPlan]
    schedules: Sequence[SchedulePlan]


def find_warnings(judged: Judged) -> list[PlanWarning]:
    """All of them, by rule."""
    return [PlanWarning(rule, text) for rule, find in RULES.items() for text in find(judged)]


def _phase_never_begins(judged: Judged) -> Iterator[str]:
    curriculum = judged.values["curriculum"]
    switch, total = curriculum.get("switch_step"), curriculum["total_steps"]
    if switch and total <= switch:
        absent = [task.task for task in judged.tasks if not task.drawn]
        without = f", so {_and(absent)} never train" if absent else ""
        yield (
            f"the second phase never begins: it would at step {switch:,}, and the run ends at "
            f"{total:,}{without}; raise total_steps or lower phase1_steps, unless the first phase "
            "alone is meant"
        )


def _task_never_drawn(judged: Judged) -> Iterator[str]:
    if next(_phase_never_begins(judged), None):
        return  # that line names them
    for task in judged.tasks:
        if not task.drawn:
            yield (
                f"{task.task} is never drawn, but evaluated; leave it out of task=[…], or give it "
                f"a share in the curriculum's phases"
            )


def _many_passes(judged: Judged) -> Iterator[str]:
    for task in judged.tasks:
        if task.passes is not None and task.passes > MOST_PASSES:
            yield (
                f"{task.task} passes {task.passes:.1f} times over its {task.train:,} rows; lower "
                f"{_rows_key(judged, task.task)} or total_steps"
            )


def _few_negatives(judged: Judged) -> Iterator[str]:
    least: dict[str, tuple[float, str]] = {}
    for phase in judged.phases:
        for task in phase.tasks:
            if task.negatives is not None:
                now = task.negatives, phase.name
                least[task.task] = min(least.get(task.task, now), now)
    few = {name: at for name, at in least.items() if at[0] < FEWEST_NEGATIVES}
    if few:
        counts = "; ".join(
            f"in phase {phase} {_and([f'{n} {few[n][0]:.1f}' for n in few if few[n][1] == phase])}"
            for phase in dict.fromkeys(phase for _, phase in few.values())
        )
        name = next(iter(few))
        way_out = f"raise {_rows_key(judged, name)}"
        if judged.layout.accumulate > 1:
            way_out = (
                "lower trainer.accumulate_grad_batches and raise data.batch_size likewise, with "
                "large_batch=auto"
            )
        yield f"fewer than {FEWEST_NEGATIVES} negatives a row: {counts}; {way_out}"


def _rows_key(judged: Judged, task: str) -> str:
    """The key that says how many rows of a step the task has."""
    rows = judged.values["data"].get("rows_per_task")
    if judged.values["tasks"][task].get("batch_size"):
        return f"tasks.{task}.batch_size"
    if isinstance(rows, Mapping):
        rows = rows.get(task)
        return f"data.rows_per_task.{task}" if rows else f"tasks.{task}.share"
    return "data.rows_per_task" if rows else f"tasks.{task}.share"


def _schedule_lengths(judged: Judged) -> Iterator[str]:
    """Those of equal length share a line."""
    start, stop = judged.phases[0].start, judged.phases[-1].stop
    groups: dict[tuple[int, int], list[SchedulePlan]] = {}
    for line in judged.schedules:
        if _moves(judged, line):
            groups.setdefault((line.first, line.steps), []).append(line)
    for (first, steps), lines in groups.items():
        what = _and([f"{line.name} of {line.of}" if line.of else line.name for line in lines])
        turn = _and(list(dict.fromkeys(map(_length_key, lines))))
        if steps == 0 and first < stop:
            yield (
                f"{what} have no steps, and their last value from step {first:,} on; raise {turn}"
            )
        elif first < stop < first + steps and first + steps > start:
            yield (
                f"{what} would move from step {first:,} to {first + steps:,}, longer than the run, "
                f"which ends at {stop:,}; lower {turn}"
            )


def _moves(judged: Judged, line: SchedulePlan) -> bool:
    """Whether it was asked to go somewhere; the way of the rates down has the steps that are left.

    A learning rate without steps to warm up starts at its peak.
    """
    if line.key == "optimizer.warmup_fraction":
        return bool(judged.values["optimizer"].get("warmup_fraction"))
    return line.key != "optimizer.final_fraction" and line.start != line.end


def _length_key(line: SchedulePlan) -> str:
    """Warm-ups follow one key unless they have steps of their own."""
    return "schedule_steps" if line.key.endswith(".steps") else line.key


def _other_batch(judged: Judged) -> Iterator[str]:
    asked = judged.values["data"].get("batch_size")
    for phase in judged.phases:
        if asked is not None and round(phase.rows) != asked * judged.layout.cells:
            yield (
                f"a step of phase {phase.name} has {phase.rows:,.0f} rows, not the "
                f"{asked * judged.layout.cells:,} of data.batch_size={asked} × "
                f"{judged.layout.world} processes × {judged.layout.accumulate} micro-batches: its "
                "tasks have rows of their own; set data.rows_per_task=null"
            )


def _small_evaluation(judged: Judged) -> Iterator[str]:
    for split, keys in (("dev", "data.eval_rows"), ("test", "")):
        found = [(task.task, getattr(task, split)) for task in judged.tasks]
        small = [f"{name} {n}" for name, n in found if n is not None and n < FEWEST_EVALUATED]
        if small:
            way_out = f"raise {keys}, or give" if keys else "give"
            yield (
                f"too few {split} rows to rank recipes by: {_and(small)}, fewer than "
                f"{FEWEST_EVALUATED}; {way_out} more rows"
            )


def _and(names: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))


RULES: dict[str, Callable[[Judged], Iterator[str]]] = {
    "phase never begins": _phase_never_begins,
    "task never drawn": _task_never_drawn,
    "many passes": _many_passes,
    "few negatives": _few_negatives,
    "length of a schedule": _schedule_lengths,
    "another batch than asked": _other_batch,
    "small evaluation": _small_evaluation,
}
