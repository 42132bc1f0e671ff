"""Writes a run's settings and data fingerprint into checkpoints; compares them on resume."""

from collections.abc import Mapping
from typing import Any

import lightning.pytorch as pl

from polyqwen.checkpoints.sidecar import RUN, differences, listed, plain
from polyqwen.data.datamodule import CurriculumDataModule
from polyqwen.training.distributed import world_size
from polyqwen.version import __version__


class RunRecord(pl.Callback):
    """Keeps settings, the data's fingerprint, number of processes and version in checkpoints.

    Args:
        settings: key -> value, plain; those that make runs equal.
        allow_data: go on with other data than the checkpoint's.
    """

    def __init__(self, settings: Mapping[str, Any], allow_data: bool = False) -> None:
        self.settings, self.allow_data = plain(settings), allow_data
        self._data: dict[str, str] | None = None

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Adds the record: plain values only, so that the file loads with ``weights_only``."""
        checkpoint[RUN] = {
            "settings": self.settings,
            "data": self._fingerprint(trainer),
            "processes": world_size(),
            "accumulate": trainer.accumulate_grad_batches,
            "version": __version__,
        }

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Compares the checkpoint's record with this run.

        Raises:
            ValueError: other data, unless allowed; or another number of micro-batches, in which
                progress is counted.
        """
        record = checkpoint.get(RUN)
        if record is None:
            return
        then, now = record["accumulate"], trainer.accumulate_grad_batches
        if then != now:
            raise ValueError(
                f"the checkpoint is of a run with trainer.accumulate_grad_batches={then}, this one "
                f"has {now}; keep it, and change processes and rows per process alone"
            )
        changed = differences(record["data"], self._fingerprint(trainer))
        if changed and not self.allow_data:
            raise ValueError(
                f"the data changed since the checkpoint was saved: {listed(changed)}; restore it, "
                "or go on with resume_allow=[data]"
            )

    def _fingerprint(self, trainer: pl.Trainer) -> dict[str, str]:
        if self._data is None:
            data = getattr(trainer, "datamodule", None)
            self._data = data.splits.fingerprint() if isinstance(data, CurriculumDataModule) else {}
        return self._data
