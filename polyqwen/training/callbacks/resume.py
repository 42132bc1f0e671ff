"""What makes a resumed run equal to one that never stopped: random states, a due validation."""

import random
from collections.abc import Collection
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch

from polyqwen.training.callbacks.base import optimizer_stepped
from polyqwen.training.distributed import gather_objects, world_size
from polyqwen.training.module import EmbeddingModule


class RandomState(pl.Callback):
    """Gives each rank its own random numbers, and keeps all of them in the checkpoint.

    Parameters are drawn alike on all ranks before; what is drawn in training (dropout) should not
    be. A checkpoint of another number of ranks leaves the seeds as they are.

    Args:
        seed: of rank 0; the others count on from it.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self._restored: dict[str, Any] | None = None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Seeds this rank, or takes over the checkpoint's state; setting up may have drawn some."""
        if self._restored is not None:
            set_random_state(self._restored)
            return
        seed = self.seed + trainer.global_rank
        random.seed(seed)
        np.random.seed(seed % 2**32)
        torch.manual_seed(seed)

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Collects the states of all ranks, which all take part in saving."""
        checkpoint["random_states"] = gather_objects(random_state())

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Finds this rank's state."""
        states = checkpoint.get("random_states", [])
        if len(states) == world_size():
            self._restored = states[trainer.global_rank]


def random_state() -> dict[str, Any]:
    """This process's random states: tensors and plain Python only."""
    state = np.random.get_state(legacy=False)
    assert isinstance(state, dict)
    keys = torch.from_numpy(state["state"]["key"].astype(np.int64))
    return {
        "python": random.getstate(),
        "numpy": (keys, state["state"]["pos"], state["has_gauss"], state["gauss"]),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state() if torch.cuda.is_available() else None,
    }


def set_random_state(state: dict[str, Any]) -> None:
    """Goes on from `random_state`'s answer."""
    version, numbers, gauss = state["python"]
    random.setstate((version, tuple(numbers), gauss))
    keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state(("MT19937", keys.numpy().astype(np.uint32), position, has_gauss, cached))
    torch.set_rng_state(state["torch"].cpu())
    if state["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"].cpu())


class DueValidation(pl.Callback):
    """Runs validations that Lightning's interval has none for: at given steps, and after a resume.

    A step's checkpoint is written before its validation, or while one is broken off. Lightning
    takes it for done; what validations leave behind (best score, forgetting) would differ from a
    run that never stopped. So one that was due is run before the first step. Place it behind
    `RandomState`.

    Args:
        steps: absolute optimizer steps that end with a validation, whatever the interval.
    """

    def __init__(self, steps: Collection[int] = ()) -> None:
        self.steps = frozenset(steps)
        self._validated = 0  # optimizer step of the last one that ended
        self._interval: Any = None  # micro-batches between validations

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
        assert isinstance(pl_module, EmbeddingModule)
        self._interval = trainer.val_check_batch
        loop: Any = trainer.fit_loop.epoch_loop
        batches = loop.batch_progress.current.ready
        due = pl_module.step in self.steps or batches % trainer.val_check_batch == 0
        if not batches or not due or self._validated == trainer.global_step:
            return
        trainer.validating = True
        loop.val_loop.restarting = False
        loop.val_loop.run()
        trainer.training = True

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Makes the end of this micro-batch a multiple of Lightning's interval if it is due.

        So the validation comes where others do, behind the step's checkpoint, and once where the
        interval has one too.
        """
        assert isinstance(pl_module, EmbeddingModule)
        due = pl_module.step + 1 in self.steps and optimizer_stepped(trainer, batch_idx)
        trainer.val_check_batch = batch_idx + 1 if due else self._interval
