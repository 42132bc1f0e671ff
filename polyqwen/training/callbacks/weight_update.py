"""Ends the weighting's optimizer steps, logs its updates, and saves its window."""

import logging
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.utilities import rank_zero_only

from polyqwen.training.callbacks.base import StepCallback, check_least, log_metrics
from polyqwen.training.distributed import gather_objects, world_size
from polyqwen.training.module import EmbeddingModule
from polyqwen.weighting.weight_update import WeightUpdate, append_update, format_update, scalars

log = logging.getLogger(__name__)


class WeightUpdater(StepCallback):
    """Has the module's `TaskWeigher` end every optimizer step, and logs the update made in it.

    Checkpoints of the same step are written after it, because Lightning runs checkpoint callbacks
    last.

    Args:
        every: strategies that weigh each step by itself are logged every so many steps, >= 1.
        say_every: they are written to the text log every so many steps, >= 1.
        file: JSON lines of all that is logged, with the reasons; None: nowhere.
    """

    def __init__(self, every: int = 10, say_every: int = 100, file: str | None = None) -> None:
        for name, value in (("every", every), ("say_every", say_every)):
            check_least(f"weight_updater.{name}", value)
        self.every, self.say_every = every, say_every
        self.file = None if file is None else Path(file)

    def after_step(self, trainer: pl.Trainer, module: EmbeddingModule) -> None:
        """Updates if it is due, and logs."""
        update, weighting = module.weigher.after_step(module.step), module.weighting
        if update is not None:
            often = weighting.in_step or weighting.eval_steps == 1
            self._log(trainer, update, weighting.eval_steps if often else None)

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
    def _log(self, trainer: pl.Trainer, update: WeightUpdate, interval: int | None) -> None:
        """Every update; of strategies with an ``interval`` of few steps one in a while."""
        if interval is None or update.step % self.say_every < interval:
            log.info("task weights, %s", format_update(update))
        if interval is None or update.step % self.every < interval:
            log_metrics(trainer, scalars(update), update.step)
            if self.file is not None:
                append_update(update, self.file)
