"""Values that change with the optimizer step: loss settings, the gradient clip, the boost."""

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import lightning.pytorch as pl

from polyqwen.training.module import EmbeddingModule
from polyqwen.training.schedules import DecayShape, decay_from_switch

log = logging.getLogger(__name__)
Schedule = Callable[[int], float]


class ScheduleCallback(pl.Callback, ABC):
    """Sets something before every micro-batch, as a pure function of the optimizer step.

    So a resumed run needs no state of it. `StepLog` logs the values.

    Attributes:
        values: of the present step, by logger key.
    """

    values: dict[str, float] = {}  # noqa: RUF012  (replaced, never changed)

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Sets the values of the coming step."""
        assert isinstance(pl_module, EmbeddingModule)
        self.values = self.apply(trainer, pl_module)

    @abstractmethod
    def apply(self, trainer: pl.Trainer, module: EmbeddingModule) -> dict[str, float]:
        """Sets this step's values and returns them by logger key."""


class LossSchedule(ScheduleCallback):
    """Sets an attribute of the losses that have it, such as their temperature.

    Args:
        attribute: name of the losses' attribute.
        schedule: absolute optimizer step -> value.
        tasks: tasks whose losses are set; None takes all that have the attribute.
    """

    def __init__(
        self, attribute: str, schedule: Schedule, tasks: Sequence[str] | None = None
    ) -> None:
        self.attribute = attribute
        self.schedule = schedule
        self.tasks = tasks

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Says so when there is nothing to set, as in a run without scored pairs."""
        if not self._losses(pl_module):
            log.info("no loss has %r: its schedule is without effect", self.attribute)

    def _losses(self, module: Any) -> list[Any]:
        tasks = [t for t in module.losses if self.tasks is None or t in self.tasks]
        return [module.losses[t] for t in tasks if hasattr(module.losses[t], self.attribute)]

    def apply(self, trainer: pl.Trainer, module: EmbeddingModule) -> dict[str, float]:
        """Sets this step's value."""
        losses = self._losses(module)
        if not losses:
            return {}
        value = float(self.schedule(module.step))
        for loss in losses:
            setattr(loss, self.attribute, value)
        return {f"schedule/{self.attribute}": value}


class GradientClipSchedule(ScheduleCallback):
    """Sets the largest gradient norm; Lightning clips to it in the same step.

    Args:
        schedule: absolute optimizer step -> norm, > 0.
    """

    def __init__(self, schedule: Schedule) -> None:
        self.schedule = schedule

    def apply(self, trainer: pl.Trainer, module: EmbeddingModule) -> dict[str, float]:
        """Sets this step's value."""
        trainer.gradient_clip_val = float(self.schedule(module.step))
        return {"schedule/gradient_clip": trainer.gradient_clip_val}


class TaskBoost(ScheduleCallback):
    """Multiplies one task's loss after the phase switch, so that new tasks do not drown it.

    Args:
        task: the task; without effect when it does not take part.
        switch_step: absolute optimizer step of the switch; None for no switch.
        factor: at the switch, > 0.
        boost_steps: optimizer steps until it is back at 1, >= 0.
        shape: of the way back: "linear", "cosine", or "step" for ``factor`` until the last step.
    """

    def __init__(
        self,
        task: str,
        switch_step: int | None,
        factor: float = 2.0,
        boost_steps: int = 500,
        shape: DecayShape = "linear",
    ) -> None:
        decay_from_switch(0, switch_step, factor, boost_steps, shape)  # checks the ranges
        self.task, self.switch_step = task, switch_step
        self.factor, self.boost_steps, self.shape = factor, boost_steps, shape

    def apply(self, trainer: pl.Trainer, module: EmbeddingModule) -> dict[str, float]:
        """Sets this step's value."""
        if self.task not in module.boost:
            return {}
        value = decay_from_switch(
            module.step, self.switch_step, self.factor, self.boost_steps, self.shape
        )
        module.boost[self.task] = value
        return {f"schedule/boost_{self.task}": value}
