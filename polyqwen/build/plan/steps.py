"""Rows, negatives and passes of a run, from its configuration and numbers of rows alone."""

from collections.abc import Mapping
from typing import NamedTuple

from omegaconf import DictConfig

from polyqwen.build.instantiate import make, make_part
from polyqwen.build.plan.rows import Layout, SplitRows, plan_phases, plan_tasks, share_curve
from polyqwen.build.plan.types import PhasePlan, ShareCurve, TaskPlan
from polyqwen.build.processes import asked_devices
from polyqwen.config.check import resolved
from polyqwen.data.rows.task import Task
from polyqwen.data.sampling.curriculum import Curriculum
from polyqwen.data.sampling.shares import Shares
from polyqwen.data.sampling.train_rows import TrainRows

UNKNOWN = 10**12  # stands for the rows of a task whose number is not known


class RowsPlan(NamedTuple):
    """What follows from numbers of rows."""

    phases: list[PhasePlan]
    tasks: list[TaskPlan]
    shares: ShareCurve


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
    steps = _train_rows(cfg, tasks, curriculum).steps(sizes, layout.cells)
    return RowsPlan(
        phases=plan_phases(steps, layout, tasks, known),
        tasks=plan_tasks(steps, known),
        shares=share_curve(steps),
    )


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
