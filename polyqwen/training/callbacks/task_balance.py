"""Task weights and sampling shares at the end of each step: updated, logged, kept."""

import logging
import math
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor

from polyqwen.data.datamodule import CurriculumDataModule
from polyqwen.data.sampling.shares import AdaptiveSampling
from polyqwen.losses.types import LossOutput
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


class SamplingUpdater(StepCallback):
    """At the end of each window hands the tasks' mean signal to an `AdaptiveSampling`.

    Losses are those of all ranks' rows, so ranks agree; rank 0's sums are taken all the same, as
    the last bit may differ. Micro-batches that are not finite are left out. The window in progress
    is kept in the checkpoint. Without adaptive sampling there is nothing to do.
    """

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int | Tensor] = {}

    def state_dict(self) -> dict[str, Any]:
        """The window so far."""
        return {
            "sums": {task: float(value) for task, value in self._sums.items()},
            "counts": {task: int(count) for task, count in self._counts.items()},
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Goes on with a window."""
        sums = state_dict["sums"].items()
        self._sums = {task: torch.tensor(value, dtype=torch.float64) for task, value in sums}
        self._counts = dict(state_dict["counts"])

    def after_micro_batch(self, trainer: pl.Trainer, module: EmbeddingModule) -> None:
        """Adds the micro-batch to the window."""
        rows = _adaptive_rows(trainer)
        if rows is None:
            return
        record, signal = module.record, rows.sampling.signal
        for task in module.tasks:
            output = record.outputs.get(task)
            value = None if output is None else _signal(output, signal)
            if value is not None:
                value = torch.where(record.finite, value, 0.0)  # before the sum: NaN · 0 is NaN
                self._sums[task] = self._sums.get(task, torch.zeros_like(value)).to(value) + value
                self._counts[task] = self._counts.get(task, 0) + record.finite.long()

    def after_step(self, trainer: pl.Trainer, module: EmbeddingModule) -> None:
        """Decides on the tasks' shares when a window ends."""
        rows = _adaptive_rows(trainer)
        if rows is None or module.step % rows.sampling.window:
            return
        means = [
            float(self._sums[t]) / int(count) if (count := self._counts.get(t)) else math.nan
            for t in module.tasks
        ]
        by_task = dict(zip(module.tasks, gather_objects(means)[0], strict=True))
        self._sums, self._counts = {}, {}
        factors = rows.resample(module.step, by_task)
        values = {f"sampling/factor/{task}": factor for task, factor in factors.items()}
        log_metrics(trainer, values, module.step)


def _adaptive_rows(trainer: pl.Trainer) -> Any:
    """The data module's `TrainRows`, if their `sampling` is an `AdaptiveSampling`; else None."""
    data = getattr(trainer, "datamodule", None)
    if not isinstance(data, CurriculumDataModule):
        return None
    rows = data.train_rows
    return rows if isinstance(rows.sampling, AdaptiveSampling) else None


def _signal(output: LossOutput, signal: str) -> Tensor | None:
    """A task's value of one micro-batch, in double precision; None where it has none."""
    if signal == "uncertainty":
        value = output.components.get("uncertainty")
        return None if value is None else value.detach().double()
    total, chance = output.total.detach().double(), output.chance.double()
    return torch.where(chance > 0, total / chance.clamp_min(1e-12), total)
