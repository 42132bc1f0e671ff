"""What moves with the optimizer step: learning rates, warm-ups, the gradient clip, the boost."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from hydra.utils import get_class
from omegaconf import DictConfig
from torch import nn

from polyqwen.build.instantiate import make_part
from polyqwen.build.plan.model import make_optimizer
from polyqwen.build.plan.types import SchedulePlan
from polyqwen.build.run import run_steps
from polyqwen.training.callbacks.schedules import (
    GradientClipSchedule,
    ScheduleCallback,
    TaskBoost,
)
from polyqwen.training.schedules import decay_from_switch

NO_DECAY = "_no_decay"  # ends the name of a group with the same rate as the one before it


def schedule_callbacks(cfg: DictConfig) -> dict[str, ScheduleCallback]:
    """Those callbacks of the run that set a value by the step, by their keys."""
    chosen = {
        str(name): node
        for name, node in cfg.callbacks.items()
        if node and issubclass(get_class(node._target_), ScheduleCallback)
    }
    return {name: make_part(f"callbacks.{name}", node) for name, node in chosen.items()}


def plan_schedules(
    cfg: DictConfig, callbacks: Mapping[str, ScheduleCallback], losses: Mapping[str, Any]
) -> list[SchedulePlan]:
    """All of them: learning rates first.

    Args:
        cfg: the configuration.
        callbacks: of `schedule_callbacks`.
        losses: task -> its own loss.
    """
    lines = list(_rates(cfg))
    for name, callback in callbacks.items():
        lines += _told(callback, f"callbacks.{name}", losses)
    return lines


def boost_at(boost: TaskBoost, step: int) -> float:
    """Factor of a task's losses at an absolute step."""
    shape = getattr(boost, "shape", None)
    return decay_from_switch(
        *(step, boost.switch_step, boost.factor, boost.boost_steps, *([shape] if shape else []))
    )


def _told(callback: Any, key: str, losses: Mapping[str, Any]) -> list[SchedulePlan]:
    """What a callback moves; nothing where it is without effect, or not one of ours."""
    if isinstance(callback, TaskBoost):
        first, steps = callback.switch_step, callback.boost_steps
        if first is None or callback.task not in losses:
            return []
        key = f"{key}.boost_steps"
        return [SchedulePlan("boost", callback.task, callback.factor, 1.0, first, steps, key)]
    way = getattr(getattr(callback, "schedule", callback), "keywords", vars(callback))
    if not {"start", "steps"} <= way.keys():
        return []
    if isinstance(callback, GradientClipSchedule):
        ends = {"": way["end"]} if way["end"] is not None else {}
        name = "gradient clip"
    else:
        name = callback.attribute
        if hasattr(callback, "targets"):
            ends = callback.targets(losses)
        else:
            ends = {task: way["end"] for task, loss in losses.items() if hasattr(loss, name)}
    lines = []
    for end in dict.fromkeys(ends.values()):
        of = ", ".join(task for task, own in ends.items() if own == end)
        lines.append(SchedulePlan(name, of, way["start"], end, 0, way["steps"], f"{key}.steps"))
    return lines


def _rates(cfg: DictConfig) -> Iterator[SchedulePlan]:
    """Ways of the learning rates: to the peak and from there, as the run's own schedule has them.

    They are counted from the run's first step, the others from the curriculum's.
    """
    made = make_optimizer(cfg, nn.Linear(1, 1), nn.Linear(1, 1))
    rate, steps = made["lr_scheduler"]["scheduler"].lr_lambdas[0], run_steps(cfg)
    values = np.array([rate(step) for step in range(steps + 1)])
    peak, first = int(values.argmax()), int(cfg.curriculum.start_step)
    for group in made["optimizer"].param_groups:
        name, highest = group["name"], group["initial_lr"]
        if name.endswith(NO_DECAY):
            continue
        ways = [("lr warm-up", 0, peak, "warmup_fraction"), ("lr", peak, steps, "final_fraction")]
        for what, begin, end, key in ways:
            start, stop = highest * float(values[begin]), highest * float(values[end])
            yield SchedulePlan(
                *(what, name, start, stop, first + begin, end - begin), f"optimizer.{key}"
            )
