"""Rows, negatives and passes of a run, from its configuration and numbers of rows alone."""

from collections import Counter
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from omegaconf import DictConfig

from polyqwen.build.instantiate import make, make_part
from polyqwen.build.plan.rows import (
    Layout,
    SplitRows,
    micro_batch_rows,
    phases_of,
    plan_phases,
    plan_tasks,
    share_curve,
)
from polyqwen.build.plan.types import PhasePlan, ShareCurve, TaskPlan
from polyqwen.build.processes import asked_devices
from polyqwen.config.check import resolved
from polyqwen.data.rows.task import Task
from polyqwen.data.sampling.curriculum import Curriculum
from polyqwen.data.sampling.shares import AdaptiveSampling, BySize, Sampling, Shares
from polyqwen.data.sampling.train_rows import TrainRows

UNKNOWN = 10**12  # stands for the rows of a task whose number is not known


class RowsPlan(NamedTuple):
    """What follows from numbers of rows.

    Attributes:
        phases: with weights of 1.
        tasks: over the whole run.
        shares: of the rows drawn.
        micro_batches: task -> its rows in gathered micro-batches of all phases, (M,).
        notes: what may come otherwise.
    """

    phases: list[PhasePlan]
    tasks: list[TaskPlan]
    shares: ShareCurve
    micro_batches: dict[str, NDArray[np.int64]]
    notes: list[str]


def plan_rows(
    cfg: DictConfig, rows: Mapping[str, int | SplitRows], layout: Layout | None = None
) -> RowsPlan:
    """Rows of a step, negatives and passes of every task: nothing is opened, no model is made.

    Args:
        cfg: the configuration.
        rows: task -> rows to train on, or rows by split.
        layout: how steps are cut; None: on the devices that the run asks for.

    Raises:
        ValueError: the run's steps cannot be filled from so many rows.
    """
    tasks, curriculum = tasks_and_curriculum(cfg)
    layout = layout or layout_of(cfg)
    known = {
        name: own if isinstance(own, SplitRows) else SplitRows(own, None, None)
        for name, own in rows.items()
    }
    sizes = {name: UNKNOWN if own.train is None else own.train for name, own in known.items()}
    train_rows = _train_rows(cfg, tasks, curriculum)
    steps = train_rows.steps(sizes, layout.cells)
    together = [
        micro_batch_rows(steps, layout, phase.start, phase.stop) for phase in phases_of(curriculum)
    ]
    every = np.concatenate(together)  # (M, T)
    return RowsPlan(
        phases=plan_phases(steps, together, tasks, known),
        tasks=plan_tasks(steps, known),
        shares=share_curve(steps),
        micro_batches={task: every[:, i] for i, task in enumerate(steps.tasks)},
        notes=_notes(tasks, train_rows.sampling, known),
    )


def _notes(
    tasks: Mapping[str, Task], sampling: Sampling, rows: Mapping[str, SplitRows]
) -> list[str]:
    notes = []
    if isinstance(sampling, AdaptiveSampling):
        notes.append("data.sampling moves shares by what it measures; these are those of the start")
    elif type(sampling) is BySize and any(own.train is None for own in rows.values()):
        notes.append("data.sampling goes by numbers of rows, of which some are not known")
    folders = Counter(task.folder for task in tasks.values() if "labels" in task.fields)
    if any(count > 1 for count in folders.values()):
        notes.append("a row with several labels trains all of their tasks, whichever drew it")
    return notes


def _train_rows(cfg: DictConfig, tasks: dict[str, Task], curriculum: Curriculum) -> TrainRows:
    """As the data module makes it."""
    data = resolved(cfg)["data"]
    sampling = make(data["sampling"]) if data.get("sampling") else Shares()
    return TrainRows(
        tasks, curriculum, sampling, data["batch_size"], data["rows_per_task"], data["seed"]
    )


def tasks_and_curriculum(cfg: DictConfig) -> tuple[dict[str, Task], Curriculum]:
    """The run's tasks and the shares that they have."""
    tasks: dict[str, Task] = {str(name): make(node) for name, node in cfg.tasks.items()}
    shares = {name: task.share for name, task in tasks.items()}
    return tasks, make_part("curriculum", cfg.curriculum, shares=shares)


def layout_of(cfg: DictConfig) -> Layout:
    """How the run cuts its steps on the devices that it asks for."""
    world = asked_devices(cfg).processes * cfg.trainer.num_nodes
    return Layout(cfg.trainer.accumulate_grad_batches, world)
