"""How long a run and its optimizer steps take."""

import statistics
import time
from typing import Any

import lightning.pytorch as pl

from polyqwen.training.callbacks.base import optimizer_stepped


class StepTimer(pl.Callback):
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

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """A micro-batch ends, and perhaps its step."""
        self._step += time.perf_counter() - self._batch_start
        if optimizer_stepped(trainer, batch_idx):
            self.steps.append(self._step)
            self._step = 0.0

    def timing(self) -> dict[str, float]:
        """``fit_seconds`` with validation, ``steps``, and the median ``seconds_per_step``."""
        if not self.steps:
            return {"fit_seconds": self.fit_seconds, "steps": 0}
        median = statistics.median(self.steps)
        steps = len(self.steps)
        return {"fit_seconds": self.fit_seconds, "steps": steps, "seconds_per_step": median}
