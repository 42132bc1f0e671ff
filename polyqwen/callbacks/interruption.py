"""Ctrl-C, or a scheduler that wants its machine back: nothing trained so far is lost."""

import os
import signal
import sys
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
import torch.distributed as dist

from polyqwen.callbacks.base import optimizer_stepped
from polyqwen.distributed import world_size

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class SaveWhenInterrupted(pl.Callback):
    """On SIGINT or SIGTERM to any rank: finishes the optimizer step, saves, ends the process.

    All ranks end at the same step with exit status 128 + signal (130, 143). A second signal ends a
    process at once. A signal that was ignored before (``nohup``, a shell's background job) stays
    ignored.

    Args:
        path: of the checkpoint.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._received = 0
        self._before: dict[signal.Signals, Any] = {}

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Takes the signals over."""
        for number in SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._before[number] = signal.signal(number, self._receive)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any, **__: Any
    ) -> None:
        """Ends the run after the step, if any rank was asked to.

        Raises:
            SystemExit: with 128 + the signal's number, after saving.
        """
        if not optimizer_stepped(trainer, trainer.fit_loop.epoch_loop.batch_idx):
            return
        received = self._of_all_ranks(trainer.strategy.root_device)
        if not received:
            return
        trainer.save_checkpoint(self.path, weights_only=False)
        if trainer.is_global_zero:
            name = signal.Signals(received).name
            sys.stdout.flush()
            print(
                f"interrupted ({name}) after {trainer.global_step} steps; go on with "
                f"ckpt_path={self.path} or resume=auto",
                file=sys.stderr,
                flush=True,
            )
        raise SystemExit(128 + received)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Gives the signals back."""
        self._restore()

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        """As `on_train_end`."""
        self._restore()

    def _receive(self, number: int, frame: object) -> None:
        if self._received:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        self._received = number
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
