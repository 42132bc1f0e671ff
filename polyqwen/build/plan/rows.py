"""Rows of a step and passes over the data, from numbers of rows alone: no file is opened."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from polyqwen.build.plan.types import PhasePlan, ShareCurve, TaskInPhase, TaskPlan
from polyqwen.data.rows.task import Task
from polyqwen.data.sampling.batches import split_step
from polyqwen.data.sampling.curriculum import Curriculum, Phase
from polyqwen.data.sampling.sampler import StepSampler

POINTS = 100  # of a phase's part of a curve
LOOKED_AT = 64  # steps of a phase whose micro-batches are formed: they differ by a row at most


class SplitRows(NamedTuple):
    """Rows of a task by split, None where the number cannot be known.

    Attributes:
        train: rows to train on.
        dev: rows of each validation.
        test: rows of the test.
        given: mean number of given negatives of a row.
        text_tokens: mean of a row, both sides; None if not known.
        visual_tokens: mean of a row, both sides; None if not known.
    """

    train: int | None
    dev: int | None
    test: int | None
    given: float = 0.0
    text_tokens: float | None = None
    visual_tokens: float | None = None


class Layout(NamedTuple):
    """How steps are cut: micro-batches of a step, and processes that share each of them."""

    accumulate: int
    world: int

    @property
    def cells(self) -> int:
        """Micro-batches times processes."""
        return self.accumulate * self.world


def phases_of(curriculum: Curriculum) -> list[Phase]:
    """The phases that a run takes part in, the first from the run's first step on."""
    first = curriculum.start_step
    return [p._replace(start=max(p.start, first)) for p in curriculum.phases if p.stop > first]


def plan_phases(
    steps: StepSampler,
    together: Sequence[NDArray[np.int64]],
    tasks: Mapping[str, Task],
    rows: Mapping[str, SplitRows],
) -> list[PhasePlan]:
    """What every phase of the run draws; weights are left at 1.

    Args:
        steps: gives the rows of each step.
        together: (M, T) `micro_batch_rows` of each phase.
        tasks: for the negatives of their rows.
        rows: of each task.
    """
    phases = zip(phases_of(steps.curriculum), together, strict=True)
    return [_phase(phase, own, steps, tasks, rows) for phase, own in phases]


def _phase(
    phase: Phase,
    together: NDArray[np.int64],
    steps: StepSampler,
    tasks: Mapping[str, Task],
    rows: Mapping[str, SplitRows],
) -> PhasePlan:
    quotas = steps.quotas[phase.start : phase.stop]  # (S, T)
    drawn, total = quotas.sum(axis=0), int(quotas.sum())
    found = []
    for i, task in enumerate(steps.tasks):
        if not drawn[i]:
            continue
        train, own = rows[task].train, together[:, i]
        found.append(
            TaskInPhase(
                task=task,
                rows=float(drawn[i] / len(quotas)),
                share=float(drawn[i] / total),
                negatives=_negatives(tasks[task], own, rows[task].given),
                passes=None if train is None else float(drawn[i] / train),
                present=float((own > 0).mean()),
                weight=1.0,
                loss_share=0.0,
            )
        )
    return PhasePlan(phase.name, phase.start, phase.stop, total / len(quotas), tuple(found))


def micro_batch_rows(
    steps: StepSampler, layout: Layout, start: int, stop: int
) -> NDArray[np.int64]:
    """Rows of each task in gathered micro-batches, which all processes share: (M, T).

    Those of `LOOKED_AT` steps at most, evenly spread, cut as `MicroBatchSampler` cuts them.
    """
    chosen = np.unique(np.linspace(start, stop - 1, min(stop - start, LOOKED_AT)).astype(int))
    counts = []
    for step in chosen.tolist():
        quotas = steps.quotas[step].tolist()
        rows = {task: np.arange(n) for task, n in zip(steps.tasks, quotas, strict=True) if n}
        cells = split_step(rows, None, layout.accumulate, layout.world, step)
        for micro in range(layout.accumulate):
            ranks = cells[micro * layout.world : (micro + 1) * layout.world]
            counts.append([sum(len(cell.get(task, ())) for cell in ranks) for task in steps.tasks])
    return np.array(counts)


def _negatives(task: Task, together: NDArray[np.int64], given: float) -> float | None:
    """Mean over rows of the negatives that each sees; None for a task without any."""
    sizes = together[together > 0]
    if "labels" in task.fields or not len(sizes):
        return None
    seen = np.array([task.negatives_seen(rows, given) for rows in sizes.tolist()])
    return float(sizes @ seen / sizes.sum())


def plan_tasks(steps: StepSampler, rows: Mapping[str, SplitRows]) -> list[TaskPlan]:
    """What every task sees over the whole run."""
    start, stop = steps.curriculum.start_step, steps.curriculum.total_steps
    drawn = steps.quotas[start:stop].sum(axis=0)
    return [
        TaskPlan(
            *(task, rows[task].train, rows[task].dev, rows[task].test, int(drawn[i])),
            passes=None if (train := rows[task].train) is None else float(drawn[i] / train),
            never_seen=None if train is None else train - steps.distinct_rows(task, start, stop),
        )
        for i, task in enumerate(steps.tasks)
    ]


def share_curve(steps: StepSampler) -> ShareCurve:
    """The tasks' parts of the rows drawn: each phase in `POINTS` windows of steps at most."""
    begins: list[int] = []
    for phase in phases_of(steps.curriculum):
        count = min(POINTS, phase.stop - phase.start)
        begins += np.linspace(phase.start, phase.stop, count, endpoint=False).astype(int).tolist()
    drawn = np.add.reduceat(steps.quotas, begins, axis=0)  # (P, T)
    parts = drawn / drawn.sum(axis=1, keepdims=True)
    return ShareCurve(
        tuple(begins),
        {task: tuple(parts[:, i].round(4).tolist()) for i, task in enumerate(steps.tasks)},
    )
