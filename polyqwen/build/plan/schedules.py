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

NO_DECAY = "_no_decay"  # ends the name of a group with the same rate as the one before it


def schedule_callbacks(cfg: DictConfig) -> dict[str, ScheduleCallback]:
    """Those callbacks of the run that set a value by the step, by their keys."""
    chosen = {
        str(name): node
        for name, node in cfg.callbacks.items()
        if node and issubclass(get_class(node["_target_"]), ScheduleCallback)
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
        length = "boost_steps" if isinstance(callback, TaskBoost) else "steps"
        key = f"callbacks.{name}.{length}"
        lines += [SchedulePlan(*line, key=key) for line in callback.describe(losses)]
    clip, key = cfg.trainer.get("gradient_clip_val"), "trainer.gradient_clip_val"
    if clip is not None and not any(
        isinstance(c, GradientClipSchedule) for c in callbacks.values()
    ):
        lines.append(SchedulePlan("gradient clip", "", float(clip), float(clip), 0, 0, key))
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
