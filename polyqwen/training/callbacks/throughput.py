"""How fast a run goes while it goes."""

import time
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.utilities import rank_zero_only

from polyqwen.training.callbacks.base import optimizer_stepped
from polyqwen.training.module import EmbeddingModule


class Throughput(pl.Callback):
    """Logs ``throughput/seconds_per_step`` and ``throughput/rows_per_second``, means of a window.

    Wall-clock between the ends of steps, loading of data included: the part of it that nothing
    hides is the difference to `StepTimer`. Windows with a validation or a start count only steps
    that followed another step at once. Rows are those of all ranks.

    Args:
        every: optimizer steps in a window, >= 1.
    """

    def __init__(self, every: int = 10) -> None:
        if every < 1:
            raise ValueError(f"throughput.every must be at least 1, got {every}")
        self.every = every
        self._last: float | None = None
        self._rows = 0  # of the step in progress
        self._steps, self._seconds, self._window_rows = 0, 0.0, 0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The first step has no step before it."""
        self._last, self._rows = None, 0

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Nor has the one after a validation."""
        self._last = None

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Adds the step; logs when a window is full."""
        assert isinstance(pl_module, EmbeddingModule) and pl_module.record is not None
        self._rows += sum(pl_module.record.rows.values())
        if not optimizer_stepped(trainer, batch_idx):
            return
        now = time.perf_counter()
        if self._last is not None:
            self._steps += 1
            self._seconds += now - self._last
            self._window_rows += self._rows
        self._last, self._rows = now, 0
        if pl_module.step % self.every == 0 and self._steps and self._seconds > 0.0:
            self._write(trainer, pl_module.step)
            self._steps, self._seconds, self._window_rows = 0, 0.0, 0

    @rank_zero_only
    def _write(self, trainer: pl.Trainer, step: int) -> None:
        values = {
            "throughput/seconds_per_step": self._seconds / self._steps,
            "throughput/rows_per_second": self._window_rows / self._seconds,
        }
        for logger in trainer.loggers:
            logger.log_metrics(values, step=step)
