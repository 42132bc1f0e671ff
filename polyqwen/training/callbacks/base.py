"""Callbacks that set something before every training batch and report what they set."""

from abc import ABC, abstractmethod
from typing import Any, cast

import lightning.pytorch as pl
from lightning.pytorch.loggers import TensorBoardLogger
from torch.utils.tensorboard import SummaryWriter

from polyqwen.training.module import EmbeddingModule


class StepCallback(pl.Callback, ABC):
    """Applies a pure function of the optimizer step, so a resumed run needs no state of it."""

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


def optimizer_stepped(trainer: pl.Trainer, batch_idx: int) -> bool:
    """Whether the optimizer stepped at the end of this micro-batch.

    A run is one epoch of whole steps (see `MicroBatchSampler`), so no state is needed, and a
    resumed run cannot take an old step for a new one.
    """
    return (batch_idx + 1) % trainer.accumulate_grad_batches == 0


def callbacks_of(trainer: pl.Trainer) -> list[pl.Callback]:
    """The trainer's callbacks, a list that Lightning sets without declaring it."""
    return cast(Any, trainer).callbacks


def tensorboard_writers(trainer: pl.Trainer) -> list[SummaryWriter]:
    """Writers of the run's TensorBoard loggers; none on other ranks than the first."""
    if not trainer.is_global_zero:
        return []
    return [
        logger.experiment for logger in trainer.loggers if isinstance(logger, TensorBoardLogger)
    ]
