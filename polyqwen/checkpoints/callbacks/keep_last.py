"""Saves checkpoints to resume from: the newest, and some before it to fall back on."""

from pathlib import Path

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Checkpoint

from polyqwen.atomic_files import point
from polyqwen.checkpoints.settings_diff import LAST
from polyqwen.training.callbacks.base import StepCallback, callbacks_of, check_least
from polyqwen.training.module import EmbeddingModule


class KeepLast(StepCallback, Checkpoint):
    """Saves ``last-STEP.ckpt`` every so many steps; ``last.ckpt`` is a link to the newest.

    A step's checkpoint is written before the validation due at it: see `DueValidation`.

    Args:
        dirpath: folder of the run's checkpoints.
        every_n_train_steps: optimizer steps between two, >= 1.
        keep: so many are kept, >= 1; 1 leaves nothing to fall back on if a disk damages it.
    """

    def __init__(self, dirpath: str, every_n_train_steps: int, keep: int = 2) -> None:
        for name, value in (("every_n_train_steps", every_n_train_steps), ("keep", keep)):
            check_least(f"callbacks.last.{name}", value)
        self.folder, self.every, self.keep = Path(dirpath), every_n_train_steps, keep

    def after_step(self, trainer: pl.Trainer, module: EmbeddingModule) -> None:
        """Saves when it is due; Lightning runs this after all other callbacks."""
        if trainer.global_step % self.every == 0:
            save_last(trainer, self.folder)

    def prune(self) -> None:
        """Removes all but the newest ``keep``."""
        newest = (self.folder / LAST).resolve()
        files = sorted(self.folder.glob("last-*.ckpt"), key=lambda p: p.stat().st_mtime_ns)
        for path in files[: -self.keep]:
            if path.resolve() != newest:
                path.with_name(f"{path.name}.json").unlink(missing_ok=True)
                path.unlink()


def save_last(trainer: pl.Trainer, folder: Path) -> Path:
    """Saves the present state as the newest of a run; all ranks take part.

    Returns:
        The file.
    """
    path = folder / f"last-{trainer.global_step}.ckpt"
    trainer.save_checkpoint(path, weights_only=False)
    for logger in trainer.loggers:
        logger.save()  # what was logged up to here would be missing after a kill
    if trainer.is_global_zero:
        (folder / f"{LAST}.json").unlink(missing_ok=True)  # of a time when it was no link
        point(folder / LAST, path.name)
        for callback in callbacks_of(trainer):
            if isinstance(callback, KeepLast):
                callback.prune()
    trainer.strategy.barrier()  # a rank that ends now takes rank 0 with it
    return path
