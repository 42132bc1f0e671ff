"""Per-step scalars: means over a few optimizer steps, for the loggers and the progress bar."""

from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import RichProgressBar
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor

from polyqwen.training.callbacks.base import (
    StepCallback,
    callbacks_of,
    check_least,
    log_metrics,
)
from polyqwen.training.callbacks.schedules import ScheduleCallback
from polyqwen.training.module import EmbeddingModule
from polyqwen.training.step import StepRecord


class StepLog(StepCallback):
    """Logs losses and components, task weights, shares of the total, gaps, rates and schedules.

    Micro-batches that are not finite are left out. Sums stay on the device, so nothing waits for it
    between two writes.

    Args:
        every: optimizer steps between writes, >= 1.
    """

    def __init__(self, every: int = 10) -> None:
        check_least("step_log.every", every)
        self.every = every
        self.latest: dict[str, float] = {}
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int | Tensor] = {}

    def after_micro_batch(self, trainer: pl.Trainer, module: EmbeddingModule) -> None:
        """Adds the micro-batch to the window."""
        finite = module.record.finite
        for key, value in step_scalars(module.record).items():
            value = torch.where(finite, value, 0.0)  # before the sum: NaN · 0 is NaN
            self._sums[key] = self._sums.get(key, torch.zeros_like(value)) + value
            self._counts[key] = self._counts.get(key, 0) + finite.long()

    def after_step(self, trainer: pl.Trainer, module: EmbeddingModule) -> None:
        """Writes when the window is full."""
        if module.step % self.every:
            return
        self.latest = {k: float(total / self._counts[k]) for k, total in self._sums.items()}
        self._sums.clear()
        self._counts.clear()
        self._write(trainer, module)

    @rank_zero_only
    def _write(self, trainer: pl.Trainer, module: EmbeddingModule) -> None:
        values = dict(self.latest)
        for callback in callbacks_of(trainer):
            if isinstance(callback, ScheduleCallback):
                values |= callback.values
        values["train/gradient_norm"] = module.gradient_norm.value
        factor = module.weighting.learning_rate_factor(module.step)
        for group in trainer.optimizers[0].param_groups:
            if not group["name"].endswith("_no_decay"):
                values[f"schedule/lr_{group['name']}"] = group["lr"] * factor
        log_metrics(trainer, values, module.step)


def step_scalars(record: StepRecord) -> dict[str, Tensor]:
    """The scalars of one training step by logger key."""
    values = {"train/loss": record.total}
    values |= {f"train/gap/{task}": gap for task, gap in record.gaps.items()}
    for task, output in record.outputs.items():
        weighted = record.weights[task] * output.total
        values[f"train/loss/{task}"] = output.total
        values[f"train/chance/{task}"] = output.chance
        values[f"train/weighted_loss/{task}"] = weighted
        values[f"train/share/{task}"] = weighted / record.total.clamp(min=1e-12)
        values[f"weight/{task}"] = record.weights[task]
        for name, component in output.components.items():
            values[f"train/loss/{task}/{name}"] = component
    return values


class TaskProgressBar(RichProgressBar):
    """Rich's bar with the latest means of `StepLog`: ``ocr 2.31×1.04`` is loss × weight."""

    def get_metrics(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule
    ) -> dict[str, int | str | float | dict[str, float]]:
        """The values behind the bar."""
        logs = [c for c in callbacks_of(trainer) if isinstance(c, StepLog)]
        latest: dict[str, Any] = logs[0].latest if logs else {}
        if "train/loss" not in latest:
            return {}
        shown: dict[str, int | str | float | dict[str, float]] = {
            "loss": f"{latest['train/loss']:.2f}"
        }
        assert isinstance(pl_module, EmbeddingModule)
        for task in pl_module.tasks:
            if f"weight/{task}" in latest:
                weight = latest[f"weight/{task}"]
                shown[task] = f"{latest[f'train/loss/{task}']:.2f}×{weight:.2f}"
        return shown
