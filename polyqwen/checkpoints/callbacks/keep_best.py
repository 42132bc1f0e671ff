"""Saves the best checkpoint of a run, also of one that is resumed in another folder."""

import logging
from pathlib import Path
from typing import Any

from lightning.pytorch.callbacks import ModelCheckpoint

from polyqwen.atomic_files import adopt
from polyqwen.checkpoints.sidecar import DamagedCheckpoint, Sidecar, sidecar_path, verified
from polyqwen.training.distributed import gather_objects, is_first

log = logging.getLogger(__name__)


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
            sidecar: Sidecar = verified(old)
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
