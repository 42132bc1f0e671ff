"""Which checkpoints of a run are kept: the newest ones, to resume from, and the best."""

import logging
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Checkpoint, ModelCheckpoint

from polyqwen.atomic_files import adopt, point
from polyqwen.checkpoints.sidecar import LAST, DamagedCheckpoint, sidecar_path, verified
from polyqwen.training.callbacks.base import StepCallback, callbacks_of, check_least
from polyqwen.training.distributed import gather_objects, is_first
from polyqwen.training.module import EmbeddingModule

log = logging.getLogger(__name__)


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


class KeepBest(ModelCheckpoint):
    """Takes over the best score when the folder changes, which Lightning's callback forgets.

    The file is linked or copied into the new folder, so that ``best.ckpt`` is there even if nothing
    better follows. If it is damaged, or of a later step than the run resumes from, the search for
    the best starts anew, with a warning.

    Args:
        dirpath: folder of the run's checkpoints.
        filename: without its ending; the same for every best.
        monitor: what is compared.
        mode: ``min`` or ``max``.
    """

    def __init__(self, dirpath: str, filename: str, monitor: str, mode: str = "max") -> None:
        super().__init__(
            dirpath=dirpath,
            filename=filename,
            monitor=monitor,
            mode=mode,
            save_top_k=1,
            enable_version_counter=False,
        )
        self._resumed_step = 0

    def on_load_checkpoint(self, trainer: Any, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        """Remembers the step that the run resumes from."""
        self._resumed_step = int(checkpoint["global_step"])

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes over score and file."""
        old = Path(state_dict["best_model_path"])
        if not state_dict["best_model_path"]:
            return
        assert self.dirpath is not None
        new = Path(self.dirpath) / old.name
        why = gather_objects(self._take(old, new) if is_first() else None)[0]
        if why is not None:
            log.warning("the best checkpoint is not taken over, the next one counts: %s", why)
            return
        score = state_dict["best_model_score"]
        self.best_model_score = self.kth_value = self.current_score = score
        self.best_k_models = {str(new): score}
        self.best_model_path = self.kth_best_model_path = str(new)

    def _take(self, old: Path, new: Path) -> str | None:
        """Links or copies file and sidecar; returns why it could not, None when it could."""
        try:
            sidecar = verified(old)
        except DamagedCheckpoint as error:
            return error.what
        except ValueError as error:
            return str(error)
        if sidecar.step > self._resumed_step:
            return f"{old} is of step {sidecar.step}, after step {self._resumed_step}"
        if old.resolve() != new.resolve():
            new.parent.mkdir(parents=True, exist_ok=True)
            adopt(old, new)
            adopt(sidecar_path(old), sidecar_path(new))
        return None
