"""Drives the weighting: a window of optimizer steps, then new task weights."""

import logging
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.utilities import rank_zero_only

from polyqwen.module import EmbeddingModule
from polyqwen.weighting.record import WeightUpdate, format_update

log = logging.getLogger(__name__)


class WeightUpdater(pl.Callback):
    """Calls the weighting's `update` every `eval_steps` optimizer steps and records what it did.

    Checkpoints of the same step are written after it, because Lightning runs checkpoint callbacks
    last.
    """

    def __init__(self) -> None:
        self._last = -1

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Windows begin with the run."""
        self._last = trainer.global_step

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, _: int
    ) -> None:
        """Updates at the end of the last micro-batch of a window."""
        assert isinstance(pl_module, EmbeddingModule)
        step = trainer.global_step
        if step == self._last:  # still accumulating
            return
        self._last = step
        weighting = pl_module.weighting
        if pl_module.step % weighting.eval_steps and not weighting.every_step:
            return
        update = weighting.update(pl_module.step)
        if update is not None:
            _log(trainer, update)


@rank_zero_only
def _log(trainer: pl.Trainer, update: WeightUpdate) -> None:
    log.info("task weights, %s", format_update(update))
    values = {f"weighting/mean_loss/{t}": v for t, v in update.mean_losses.items()}
    values |= {f"weighting/relative_loss/{t}": v for t, v in update.relative_losses.items()}
    values |= {f"weighting/rows/{t}": float(v) for t, v in update.counts.items()}
    values |= {f"weighting/base/{t}": v for t, v in update.new.items()}
    for logger in trainer.loggers:
        logger.log_metrics(values, step=update.step)
