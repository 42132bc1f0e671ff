"""How long optimizer steps take, and how many rows a second they train on."""

import statistics
import time
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.utilities import rank_zero_only

from polyqwen.training.callbacks.base import StepCallback, check_least, log_metrics
from polyqwen.training.module import EmbeddingModule


class Throughput(StepCallback):
    """Logs ``throughput/seconds_per_step`` and ``throughput/rows_per_second``, means of a window.

    Wall-clock between the ends of steps, loading of data included: the part of it that nothing
    hides is the difference to `StepTimer`. Windows with a validation or a start count only steps
    that followed another step at once. Rows are those of all ranks.

    Args:
        every: optimizer steps in a window, >= 1.
    """

    def __init__(self, every: int = 10) -> None:
        check_least("throughput.every", every)
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

    def after_micro_batch(self, trainer: pl.Trainer, module: EmbeddingModule) -> None:
        """Adds the micro-batch's rows."""
        self._rows += sum(module.record.rows.values())

    def after_step(self, trainer: pl.Trainer, module: EmbeddingModule) -> None:
        """Adds the step; logs when a window is full."""
        now = time.perf_counter()
        if self._last is not None:
            self._steps += 1
            self._seconds += now - self._last
            self._window_rows += self._rows
        self._last, self._rows = now, 0
        if module.step % self.every == 0 and self._steps and self._seconds > 0.0:
            self._write(trainer, module.step)
            self._steps, self._seconds, self._window_rows = 0, 0.0, 0

    @rank_zero_only
    def _write(self, trainer: pl.Trainer, step: int) -> None:
        values = {
            "throughput/seconds_per_step": self._seconds / self._steps,
            "throughput/rows_per_second": self._window_rows / self._seconds,
        }
        log_metrics(trainer, values, step)


class StepTimer(StepCallback):
    """Measures the time inside training batches, and that of the whole fit.

    A step's time is that of its micro-batches, each from `on_train_batch_start` to
    `on_train_batch_end`: forward, backward, optimizer and what the callbacks before this one do
    there, such as an update of the task weights. Loading data and validation are not in it. On a
    GPU the queued work counts as far as something waits for it, as `NonFiniteGuard` does in each
    step. Place it last, so that it sees the work of the others. Only steps of this process count: a
    resumed run begins at zero.
    """

    def __init__(self) -> None:
        self.steps: list[float] = []  # seconds of each optimizer step
        self.fit_seconds = 0.0
        self._fit_start = self._batch_start = self._step = 0.0

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Starts the clock of the fit."""
        self._fit_start = time.perf_counter()

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stops it."""
        self.fit_seconds = time.perf_counter() - self._fit_start

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """A micro-batch begins."""
        self._batch_start = time.perf_counter()

    def after_micro_batch(self, trainer: pl.Trainer, module: EmbeddingModule) -> None:
        """A micro-batch ends."""
        self._step += time.perf_counter() - self._batch_start

    def after_step(self, trainer: pl.Trainer, module: EmbeddingModule) -> None:
        """Its step ends."""
        self.steps.append(self._step)
        self._step = 0.0

    def timing(self) -> dict[str, float]:
        """``fit_seconds`` with validation, ``steps``, and the median ``seconds_per_step``."""
        timing = {"fit_seconds": self.fit_seconds, "steps": len(self.steps)}
        if self.steps:
            timing["seconds_per_step"] = statistics.median(self.steps)
        return timing
