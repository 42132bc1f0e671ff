"""Per-step scalars: means over a few optimizer steps, logged at the absolute step."""

from collections import defaultdict
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor

from polyqwen.training.callbacks.base import StepCallback, callbacks_of, optimizer_stepped
from polyqwen.training.module import EmbeddingModule
from polyqwen.training.step_record import StepRecord


class StepLog(pl.Callback):
    """Logs losses and components, task weights, shares of the total, gaps, rates and schedules.

    Sums stay on the device, so nothing waits for it between two writes.

    Args:
        every: optimizer steps between writes, >= 1.
    """

    def __init__(self, every: int = 10) -> None:
        if every < 1:
            raise ValueError(f"step_log.every must be at least 1, got {every}")
        self.every = every
        self.latest: dict[str, float] = {}
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = defaultdict(int)

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Adds the micro-batch; writes when a window is full."""
        assert isinstance(pl_module, EmbeddingModule) and pl_module.record is not None
        for key, value in step_scalars(pl_module.record).items():
            self._sums[key] = self._sums.get(key, torch.zeros_like(value)) + value
            self._counts[key] += 1
        if not optimizer_stepped(trainer, batch_idx) or pl_module.step % self.every:
            return
        self.latest = {k: float(total / self._counts[k]) for k, total in self._sums.items()}
        self._sums.clear()
        self._counts.clear()
        self._write(trainer, pl_module)

    @rank_zero_only
    def _write(self, trainer: pl.Trainer, module: EmbeddingModule) -> None:
        values = dict(self.latest)
        for callback in callbacks_of(trainer):
            if isinstance(callback, StepCallback):
                values |= callback.values
        values["train/gradient_norm"] = module.gradient_norm.value
        for group in trainer.optimizers[0].param_groups:
            if not group["name"].endswith("_no_decay"):
                values[f"schedule/lr_{group['name']}"] = group["lr"]
        for logger in trainer.loggers:
            logger.log_metrics(values, step=module.step)


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
