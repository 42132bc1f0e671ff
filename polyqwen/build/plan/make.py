"""Makes the plan of a run: puts together what is known of its rows, losses and model."""

from typing import Any

import torch
from hydra.errors import InstantiationException
from omegaconf import DictConfig

from polyqwen.build.instantiate import make, weighting_node
from polyqwen.build.plan.activations import kept_bytes
from polyqwen.build.plan.counts import Counted, count_rows
from polyqwen.build.plan.head import head_of, intervals_of, notes_of_devices
from polyqwen.build.plan.memory import plan_memory, tokens_of_micro_batch
from polyqwen.build.plan.model import ModelPlan, plan_model
from polyqwen.build.plan.schedules import plan_schedules, schedule_callbacks
from polyqwen.build.plan.steps import layout_of, plan_rows, tasks_and_curriculum
from polyqwen.build.plan.types import PhasePlan, Plan
from polyqwen.build.plan.warnings import Judged, find_warnings
from polyqwen.build.plan.weights import with_weights
from polyqwen.build.processes import asked_devices, precision_of
from polyqwen.build.run import build_losses
from polyqwen.build.trainer import validated_steps
from polyqwen.config.candidate_losses import further_losses
from polyqwen.config.check import resolved
from polyqwen.data.tables.splits import Splits
from polyqwen.training.callbacks.schedules import ScheduleCallback, TaskBoost
from polyqwen.weighting.base import Weighting

WIDTH = 8  # of the embeddings of losses that are made to be asked for their settings


def make_plan(cfg: DictConfig, splits: Splits | None = None, rows: Counted | None = None) -> Plan:
    """The plan of a run; no weights are loaded, no picture is opened, no random number is drawn.

    Made on a machine that lacks the run's GPUs or its published model too: what that leaves open is
    said in the notes.

    Args:
        cfg: the configuration, checked.
        splits: of the run, whose tables are prepared; None looks for what is prepared, and counts
            the rest in the files.
        rows: of all tasks by split; None counts them.

    Raises:
        ValueError: the run would refuse its configuration too.
    """
    with torch.random.fork_rng(devices=[]):  # models are built to be looked at
        return _made(cfg, splits, rows)


def _made(cfg: DictConfig, splits: Splits | None, rows: Counted | None) -> Plan:
    notes: list[str] = []
    tasks, curriculum = tasks_and_curriculum(cfg)
    devices, layout, precision = asked_devices(cfg), layout_of(cfg), precision_of(cfg)
    if rows is None:
        rows, missing = count_rows(cfg, tasks, curriculum, splits)
        notes += missing
    planned = plan_rows(cfg, rows, layout)
    notes += planned.notes
    callbacks = schedule_callbacks(cfg)
    weighting: Weighting = make(weighting_node(resolved(cfg)))
    phases = _weighted(cfg, planned.phases, weighting, callbacks)
    losses = build_losses(cfg, WIDTH)
    schedules = plan_schedules(cfg, callbacks, {name: losses[name] for name in tasks})
    model, memory = _model(cfg, notes), None
    if model is not None:
        kept = kept_bytes(cfg, precision, sum(part.parameters for part in model.parts))
        tokens = tokens_of_micro_batch(cfg, planned.micro_batches, tasks, rows, layout.world)
        memory = plan_memory(cfg, model, kept, tokens, devices, layout.world, precision)
    notes += notes_of_devices(devices)
    judged = Judged(resolved(cfg), layout, phases, planned.tasks, schedules)
    return Plan(
        head=head_of(cfg, planned, layout, devices, precision),
        phases=tuple(phases),
        tasks=tuple(planned.tasks),
        shares=planned.shares,
        weighting=type(weighting).__name__,
        schedules=tuple(schedules),
        intervals=intervals_of(cfg, weighting),
        validated=tuple(sorted(validated_steps(cfg))),
        parts=tuple(model.parts if model else ()),
        groups=tuple(model.groups if model else ()),
        memory=memory,
        warnings=tuple(find_warnings(judged)),
        notes=tuple(notes),
    )


def _weighted(
    cfg: DictConfig,
    phases: list[PhasePlan],
    weighting: Weighting,
    callbacks: dict[str, ScheduleCallback],
) -> list[PhasePlan]:
    further = further_losses(resolved(cfg))
    streams = {name: further[name].task if name in further else name for name in weighting.tasks}
    boosts = [callback for callback in callbacks.values() if isinstance(callback, TaskBoost)]

    def factors(step: int) -> dict[str, float]:
        return {boost.task: boost.at(step) for boost in boosts}

    return with_weights(phases, weighting, streams, factors)


def _model(cfg: DictConfig, notes: list[str]) -> ModelPlan | None:
    """None, with a note, where a published model's configuration or tokenizer is not here."""
    try:
        return plan_model(cfg)
    except InstantiationException as error:
        if not isinstance(error.__cause__, OSError):
            raise
    name: Any = cfg.model.encoder.get("name") or cfg.model.encoder["_target_"]
    notes.append(
        f"{name} is not on this machine, or not all of its configuration and tokenizer: "
        "parameters, optimizer groups and memory are not known"
    )
    return None
