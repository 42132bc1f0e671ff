"""Base class of callbacks that act after micro-batches and optimizer steps."""

from collections.abc import Mapping
from typing import Any, cast

import lightning.pytorch as pl
from lightning.pytorch.loggers import TensorBoardLogger
from torch.utils.tensorboard import SummaryWriter

from polyqwen.training.module import EmbeddingModule


class StepCallback(pl.Callback):
    """Callback with hooks after each micro-batch and after each optimizer step.

    Both are called in Lightning's `on_train_batch_end`, so callbacks run in the trainer's order,
    those that save checkpoints last.
    """

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Calls the hooks that are due."""
        assert isinstance(pl_module, EmbeddingModule)
        self.after_micro_batch(trainer, pl_module)
        if optimizer_stepped(trainer, batch_idx):
            self.after_step(trainer, pl_module)

    def after_micro_batch(self, trainer: pl.Trainer, module: EmbeddingModule) -> None:
        """Called after each micro-batch; ``module.record`` has what it computed."""

    def after_step(self, trainer: pl.Trainer, module: EmbeddingModule) -> None:
        """Called after each optimizer step, when ``module.step`` is counted up."""


def optimizer_stepped(trainer: pl.Trainer, batch_idx: int) -> bool:
    """Whether the optimizer stepped at the end of this micro-batch.

    A run is one epoch of whole steps (see `MicroBatchSampler`), so no state is needed, and a
    resumed run cannot take an old step for a new one.
    """
    return (batch_idx + 1) % trainer.accumulate_grad_batches == 0


def callbacks_of(trainer: pl.Trainer) -> list[pl.Callback]:
    """The trainer's callbacks, a list that Lightning sets without declaring it."""
    return cast(Any, trainer).callbacks


def check_least(name: str, value: float, least: float = 1) -> None:
    """Raises `ValueError` where a setting is below its least value.

    Args:
        name: as in the configuration, such as ``step_log.every``.
        value: given.
        least: allowed.
    """
    if value < least:
        raise ValueError(f"{name} must be at least {least}, got {value}")


def log_metrics(trainer: pl.Trainer, values: Mapping[str, Any], step: int) -> None:
    """Writes scalars by key to all of the run's loggers, at an absolute optimizer step."""
    for logger in trainer.loggers:
        logger.log_metrics(dict(values), step=step)


def tensorboard_writers(trainer: pl.Trainer) -> list[SummaryWriter]:
    """Writers of the run's TensorBoard loggers; none on other ranks than the first."""
    if not trainer.is_global_zero:
        return []
    return [
        logger.experiment for logger in trainer.loggers if isinstance(logger, TensorBoardLogger)
    ]
