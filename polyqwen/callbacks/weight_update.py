"""Drives the weighting: a window of optimizer steps, then new task weights."""

import logging
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.utilities import rank_zero_only

from polyqwen.callbacks.base import optimizer_stepped
from polyqwen.distributed import gather_objects, world_size
from polyqwen.module import EmbeddingModule
from polyqwen.weighting.record import WeightUpdate, format_update

log = logging.getLogger(__name__)


class WeightUpdater(pl.Callback):
    """Calls the weighting's `update` every `eval_steps` optimizer steps and records what it did.

    Checkpoints of the same step are written after it, because Lightning runs checkpoint callbacks
    last.
    """

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Updates at the end of the last micro-batch of a window."""
        assert isinstance(pl_module, EmbeddingModule)
        if not optimizer_stepped(trainer, batch_idx):
            return
        weighting = pl_module.weighting
        if pl_module.step % weighting.eval_steps and not weighting.every_step:
            return
        update = weighting.update(pl_module.step)
        if update is not None:
            _log(trainer, update)

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Collects every rank's losses since the last update; all ranks take part in saving."""
        assert isinstance(pl_module, EmbeddingModule)
        checkpoint["weighting_pending"] = gather_objects(pl_module.weighting.pending.cpu())

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Gives each rank its own losses back; with another number of ranks rank 0 takes all."""
        assert isinstance(pl_module, EmbeddingModule)
        saved = checkpoint.get("weighting_pending")
        if saved is None:
            return
        if len(saved) != world_size():
            saved = [torch.stack(saved).sum(0)] + [torch.zeros_like(saved[0])] * (world_size() - 1)
        pl_module.weighting.pending.copy_(saved[trainer.global_rank])


@rank_zero_only
def _log(trainer: pl.Trainer, update: WeightUpdate) -> None:
    log.info("task weights, %s", format_update(update))
    values = {f"weighting/mean_loss/{t}": v for t, v in update.mean_losses.items()}
    values |= {f"weighting/relative_loss/{t}": v for t, v in update.relative_losses.items()}
    values |= {f"weighting/rows/{t}": float(v) for t, v in update.counts.items()}
    values |= {f"weighting/base/{t}": v for t, v in update.new.items()}
    for logger in trainer.loggers:
        logger.log_metrics(values, step=update.step)
