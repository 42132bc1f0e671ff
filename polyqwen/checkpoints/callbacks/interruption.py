"""Signals during training: finishes the step, saves a checkpoint, ends the process."""

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
import torch.distributed as dist
from lightning.pytorch.trainer.states import TrainerFn
from torch.distributed.fsdp import FSDPModule

from polyqwen.checkpoints.callbacks.keep import save_last
from polyqwen.training.callbacks.base import StepCallback
from polyqwen.training.distributed import Flag, world_size
from polyqwen.training.module import EmbeddingModule

SIGNALS = (signal.SIGINT, signal.SIGTERM)
AT_ONCE = 0.5  # seconds in which the same signal counts once: a launcher hands on what all got


class SaveWhenInterrupted(StepCallback):
    """On SIGINT or SIGTERM to any rank: finishes the optimizer step, saves, ends the process.

    A validation is broken off; it is due again when the run goes on (`DueValidation`). All ranks
    end at the same step with exit status 128 + signal (130, 143). A second signal ends a process
    at once. A signal that was ignored before (``nohup``, a shell's background job) stays ignored.

    Args:
        folder: of the run's checkpoints.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self._received, self._when = 0, 0.0
        self._flag: Flag | None = None
        self._before: dict[signal.Signals, Any] = {}
        self._validation: dict[str, Any] = {}

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Installs the signal handlers."""
        self._flag = Flag("interrupted") if world_size() > 1 else None
        for number in SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._before[number] = signal.signal(number, self._receive)

    def after_step(self, trainer: pl.Trainer, module: EmbeddingModule) -> None:
        """Ends the run if any rank was asked to.

        Raises:
            SystemExit: with 128 + the signal's number, after saving.
        """
        self._meet(trainer)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Keeps the progress of a validation that has not begun, for the checkpoint."""
        if trainer.state.fn == TrainerFn.FITTING:
            progress = trainer.fit_loop.epoch_loop.val_loop.batch_progress
            self._validation = progress.state_dict()

    def on_validation_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any, **__: Any
    ) -> None:
        """Breaks the validation off, without a collective: ranks may have fewer batches."""
        if trainer.state.fn != TrainerFn.FITTING:
            return
        if self._received and self._flag:
            self._flag.set()
        if self._received or (self._flag and self._flag.is_set()):
            self._meet(trainer)

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Ends the run if any rank was asked to, before metrics are gathered."""
        if trainer.state.fn == TrainerFn.FITTING:
            self._meet(trainer)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Puts the former signal handlers back."""
        self._restore()

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        """As `on_train_end`."""
        self._restore()

    def _meet(self, trainer: pl.Trainer) -> None:
        """Saves and ends, if any rank was asked to; a collective."""
        received = self._of_all_ranks(trainer.strategy.root_device)
        if not received:
            return
        if trainer.validating:
            if isinstance(trainer.lightning_module, FSDPModule):
                trainer.lightning_module.reshard()
            trainer.fit_loop.epoch_loop.val_loop.batch_progress.load_state_dict(self._validation)
        path = save_last(trainer, self.folder)
        if trainer.is_global_zero:
            name = signal.Signals(received).name
            sys.stdout.flush()
            print(
                f"interrupted ({name}) after {trainer.global_step} steps; go on with resume=auto "
                f"or resume={path}",
                file=sys.stderr,
                flush=True,
            )
        trainer.strategy.barrier()
        raise SystemExit(128 + received)

    def _receive(self, number: int, frame: object) -> None:
        now = time.monotonic()
        if self._received == number and now - self._when < AT_ONCE:
            return
        if self._received:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        self._received, self._when = number, now
        text = "finishing this step, then saving; once more to end at once"
        print(text, file=sys.stderr, flush=True)

    def _of_all_ranks(self, device: torch.device) -> int:
        if world_size() == 1:
            return self._received
        received = torch.tensor(self._received, device=device)
        dist.all_reduce(received, dist.ReduceOp.MAX)
        return int(received)

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}
