"""Values that change with the optimizer step: loss settings, the gradient clip, the boost."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import lightning.pytorch as pl

from polyqwen.training.module import EmbeddingModule
from polyqwen.training.schedules import Shape, curve, decay_from_switch


class ScheduleLine(NamedTuple):
    """One value that a schedule moves, as it is told before the run.

    Attributes:
        name: of the value.
        of: the losses or tasks that it belongs to.
        start: value up to step ``first``.
        end: value from step ``first + steps`` on.
        first: absolute optimizer step.
        steps: optimizer steps, >= 0.
    """

    name: str
    of: str
    start: float
    end: float
    first: int
    steps: int


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

    @abstractmethod
    def describe(self, losses: Mapping[str, Any]) -> list[ScheduleLine]:
        """What it will move; nothing where it is without effect.

        Args:
            losses: task -> its own loss, as configured.
        """


class LossWarmup(ScheduleCallback):
    """Moves a setting of losses from a start value to the one that each loss was configured with.

    ``value(step) = shape(step; start, configured, steps)``: the paper's warm-ups of τ, λ_score and
    λ_rank (viPolyQwen, section 3.4). A loss whose configured value is 0 keeps it: its term is off.

    Args:
        attribute: name of the losses' attribute, such as ``temperature``.
        start: value at step 0.
        steps: optimizer steps until the configured value, >= 0; 0: from step 0 on.
        shape: "linear", "cosine" or "step".
        losses: tasks whose own losses are warmed; tasks that take no part are passed over. None:
            those whose class names the attribute in ``warmed``, so that another quantity of the
            same name (the temperature of CoSENT or of SigLIP) is left alone.

    Raises:
        ValueError: an unknown shape, or ``steps`` below 0; at the start of the fit, a loss named
            in ``losses`` without the attribute.
    """

    def __init__(
        self,
        attribute: str,
        start: float,
        steps: int,
        shape: Shape = "linear",
        losses: Sequence[str] | None = None,
    ) -> None:
        self.attribute, self.start, self.steps = attribute, start, steps
        self.curve = curve(shape)
        self.curve(0, start, start, steps)  # checks the length
        self.losses = losses
        self.configured: dict[str, float] = {}  # name of each loss -> value to end at

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Notes the configured values, before the first step replaces them."""
        assert isinstance(pl_module, EmbeddingModule)
        self.configured = self.targets({task: pl_module.losses[task] for task in pl_module.tasks})

    def targets(self, losses: Mapping[str, Any]) -> dict[str, float]:
        """The losses that are warmed, with the values that they end at.

        Args:
            losses: task -> its own loss.
        """
        chosen = losses
        if self.losses is not None:
            chosen = {task: loss for task, loss in losses.items() if task in self.losses}
            for task, loss in chosen.items():
                if not hasattr(loss, self.attribute):
                    raise ValueError(
                        f"the warm-up of {self.attribute} names the loss of {task}, but a "
                        f"{type(loss).__name__} has none; take {task} out of its losses"
                    )
        else:
            chosen = {t: x for t, x in losses.items() if self.attribute in getattr(x, "warmed", ())}
        ends = {task: float(getattr(loss, self.attribute)) for task, loss in chosen.items()}
        return {task: end for task, end in ends.items() if end != 0.0}

    def describe(self, losses: Mapping[str, Any]) -> list[ScheduleLine]:
        """See `ScheduleCallback.describe`: a line for the losses that end at one value."""
        by_end: dict[float, list[str]] = {}
        for task, end in self.targets(losses).items():
            by_end.setdefault(end, []).append(task)
        return [
            ScheduleLine(self.attribute, ", ".join(tasks), self.start, end, 0, self.steps)
            for end, tasks in by_end.items()
        ]

    def apply(self, trainer: pl.Trainer, module: EmbeddingModule) -> dict[str, float]:
        """Sets this step's value; one logger key if all losses end at the same value."""
        values = {
            task: self.curve(module.step, self.start, end, self.steps)
            for task, end in self.configured.items()
        }
        for task, value in values.items():
            setattr(module.losses[task], self.attribute, value)
        key = f"schedule/{self.attribute}"
        if len(set(self.configured.values())) == 1:
            return {key: next(iter(values.values()))}
        return {f"{key}/{task}": value for task, value in values.items()}


class GradientClipSchedule(ScheduleCallback):
    """Sets the largest gradient norm; Lightning clips to it in the same step.

    Args:
        start: norm at step 0, > 0.
        end: norm from ``steps`` on, > 0; None (``trainer.gradient_clip_val=null``): gradients are
            never clipped.
        steps: optimizer steps from one to the other, >= 0.
        shape: "linear", "cosine" or "step".

    Raises:
        ValueError: a number or the shape is out of range.
    """

    def __init__(
        self, start: float, end: float | None, steps: int, shape: Shape = "cosine"
    ) -> None:
        for name, norm in (("start", start), ("end", end)):
            if norm is not None and not norm > 0.0:
                raise ValueError(f"the gradient clip's {name} must be > 0, got {norm}")
        self.start, self.end, self.steps = start, end, steps
        self.curve = curve(shape)
        self.curve(0, start, start, steps)  # checks the length

    def describe(self, losses: Mapping[str, Any]) -> list[ScheduleLine]:
        """See `ScheduleCallback.describe`."""
        if self.end is None:
            return []
        return [ScheduleLine("gradient clip", "", self.start, self.end, 0, self.steps)]

    def apply(self, trainer: pl.Trainer, module: EmbeddingModule) -> dict[str, float]:
        """Sets this step's value."""
        if self.end is None:
            return {}
        trainer.gradient_clip_val = self.curve(module.step, self.start, self.end, self.steps)
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
        shape: Shape = "linear",
    ) -> None:
        decay_from_switch(0, switch_step, factor, boost_steps, shape)  # checks the ranges
        self.task, self.switch_step = task, switch_step
        self.factor, self.boost_steps, self.shape = factor, boost_steps, shape

    def at(self, step: int) -> float:
        """The factor at an absolute optimizer step."""
        return decay_from_switch(step, self.switch_step, self.factor, self.boost_steps, self.shape)

    def describe(self, losses: Mapping[str, Any]) -> list[ScheduleLine]:
        """See `ScheduleCallback.describe`."""
        if self.switch_step is None or self.task not in losses:
            return []
        first = self.switch_step
        return [ScheduleLine("boost", self.task, self.factor, 1.0, first, self.boost_steps)]

    def apply(self, trainer: pl.Trainer, module: EmbeddingModule) -> dict[str, float]:
        """Sets this step's value."""
        if self.task not in module.boost:
            return {}
        value = self.at(module.step)
        module.boost[self.task] = value
        return {f"schedule/boost_{self.task}": value}
