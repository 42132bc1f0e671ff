"""The progress bar: total loss, then each task's own loss and weight."""

from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import RichProgressBar

from polyqwen.training.callbacks.base import callbacks_of
from polyqwen.training.callbacks.step_log import StepLog
from polyqwen.training.module import EmbeddingModule


class TaskProgressBar(RichProgressBar):
    """Rich's bar with the latest means of `StepLog`: ``ocr 2.31×1.04`` is loss × weight."""

    def get_metrics(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule
    ) -> dict[str, int | str | float | dict[str, float]]:
        """What stands behind the bar."""
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
