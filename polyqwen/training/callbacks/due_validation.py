"""A validation that a kill prevented is made up for."""

from typing import Any

import lightning.pytorch as pl


class DueValidation(pl.Callback):
    """Validates first, if the checkpoint is of a step whose validation had not ended.

    A step's checkpoint is written before its validation, or while one is broken off. Lightning
    takes it for done; what validations leave behind (best score, forgetting) would differ from a
    run that never stopped. Place it behind the callback that restores the random states.
    """

    def __init__(self) -> None:
        self._validated = 0  # optimizer step of the last one that ended

    def state_dict(self) -> dict[str, int]:
        """For the checkpoint."""
        return {"validated": self._validated}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """From the checkpoint."""
        self._validated = state_dict["validated"]

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Before the best checkpoint is saved: Lightning runs those callbacks last."""
        self._validated = trainer.global_step

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Validates if it is due."""
        loop: Any = trainer.fit_loop.epoch_loop
        batches = loop.batch_progress.current.ready
        if (
            not batches
            or batches % trainer.val_check_batch
            or self._validated == trainer.global_step
        ):
            return
        trainer.validating = True
        loop.val_loop.restarting = False
        loop.val_loop.run()
        trainer.training = True
