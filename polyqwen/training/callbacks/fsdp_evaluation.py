"""Weights that every process keeps a part of (FSDP), put together for evaluation."""

from typing import Any

import lightning.pytorch as pl
from torch.distributed.fsdp import FSDPModule


class WholeInEvaluation(pl.Callback):
    """Gathers the weights before a validation or test and lets go of them after it.

    Ranks may have different numbers of evaluation batches, so that nothing can be gathered batch by
    batch: the rank with more of them would wait for ever.
    """

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Gathers."""
        _sharded(pl_module).unshard()

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Lets go."""
        _sharded(pl_module).reshard()

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Gathers."""
        _sharded(pl_module).unshard()

    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Lets go."""
        _sharded(pl_module).reshard()


def _sharded(module: Any) -> FSDPModule:
    assert isinstance(module, FSDPModule)
    return module
