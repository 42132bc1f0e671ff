"""Skips steps whose gradients are not finite, and stops a run that has nothing else."""

import json
import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from torch.optim import Optimizer

from polyqwen.training.callbacks.base import check_least, log_metrics
from polyqwen.training.module import EmbeddingModule
from polyqwen.training.nonfinite_rows import (
    CAUSES,
    NonFiniteRows,
    find_nonfinite_rows,
    nonfinite_parameters,
)
from polyqwen.training.step import StepRecord

log = logging.getLogger(__name__)
FILE = "bad_steps.jsonl"  # in the run's folder
SHOWN = 4  # rows and parameters named in a line of the terminal; the file has all


class TooManyBadSteps(RuntimeError):
    """A run that cannot go on: its gradients are not finite, step after step."""


class NonFiniteGuard(pl.Callback):
    """Looks at the gradient norm before every optimizer step.

    A norm that is not finite makes the step a no-op: gradients are set to None, since zeros would
    still move AdamW. Under DDP gradients are reduced before, so all ranks decide alike. Such a step
    is written to ``bad_steps.jsonl`` with the rows and parameters at fault; a good step only keeps
    its micro-batches' records.

    Args:
        max_bad_steps: so many skipped steps in a row stop the run with an error, >= 1.
    """

    def __init__(self, max_bad_steps: int = 10) -> None:
        check_least("nonfinite.max_bad_steps", max_bad_steps)
        self.max_bad_steps = max_bad_steps
        self.in_a_row = 0
        self.total = 0
        self._records: list[StepRecord] = []  # of this step's micro-batches

    def state_dict(self) -> dict[str, int]:
        """Counters for the checkpoint."""
        return {"in_a_row": self.in_a_row, "total": self.total}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Counters from the checkpoint."""
        self.in_a_row, self.total = state_dict["in_a_row"], state_dict["total"]

    def on_after_backward(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Keeps the micro-batch's record until the step is over."""
        assert isinstance(pl_module, EmbeddingModule)
        self._records.append(pl_module.record)

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Optimizer
    ) -> None:
        """Skips the step if it must be.

        Raises:
            TooManyBadSteps: after `max_bad_steps` in a row, on all ranks alike.
        """
        assert isinstance(pl_module, EmbeddingModule)
        norm = pl_module.gradient_norm.measure(pl_module.parameters())
        records, self._records = self._records, []
        if math.isfinite(norm):
            self.in_a_row = 0
            return
        self.in_a_row += 1
        self.total += 1
        self._report(trainer, pl_module, norm, records)
        for parameter in pl_module.parameters():
            parameter.grad = None
        if self.in_a_row >= self.max_bad_steps:
            raise TooManyBadSteps(
                f"{self.in_a_row} steps in a row had gradients that are not finite (last at step "
                f"{pl_module.step}); {last_good(trainer, pl_module)}; the rows are in "
                f"{Path(trainer.default_root_dir) / FILE}: lower optimizer.backbone_lr, raise the "
                "temperature, or look at the data"
            )

    def _report(
        self,
        trainer: pl.Trainer,
        module: EmbeddingModule,
        norm: float,
        records: Sequence[StepRecord],
    ) -> None:
        """One line for the text log, one in the file, one number for the loggers; a collective."""
        rows, parameters = find_nonfinite_rows(module, records), nonfinite_parameters(module)
        if not trainer.is_global_zero:
            return
        entry: dict[str, Any] = {
            "step": module.step,
            "gradient_norm": str(norm),  # JSON has no NaN
            "in_a_row": self.in_a_row,
            "total": self.total,
            "rows": [bad._asdict() for bad in rows],
            "parameters": parameters,
        }
        path = Path(trainer.default_root_dir) / FILE
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")
        log.warning(
            "step %d skipped: gradient norm %s (%d in a row, %d in all); %s; all of it in %s",
            *(module.step, norm, self.in_a_row, self.total, _describe(rows, parameters), path),
        )
        log_metrics(trainer, {"train/skipped_steps": self.total}, trainer.global_step)


def last_good(trainer: pl.Trainer, module: EmbeddingModule) -> str:
    """The newest checkpoint of the run with finite weights, in words.

    A skipped step changes no weight, so it is the newest of all, unless a finite gradient has moved
    the weights beyond all numbers before.
    """
    there = Path(trainer.default_root_dir, "checkpoints").glob("*.ckpt")
    paths = sorted(there, key=lambda path: path.stat().st_mtime, reverse=True)
    if all(bool(p.isfinite().all()) for p in module.parameters()):
        good = paths[:1]
    else:
        names = [name for name, _ in module.named_parameters()]
        good = [path for path in paths if _are_finite(path, names)][:1]
    if not good:
        return "there is no good checkpoint" if paths else "no checkpoint was due yet"
    return f"the last good checkpoint is {good[0]}"


def _are_finite(path: Path, names: Sequence[str]) -> bool:
    state = torch.load(path, map_location="cpu", weights_only=True)["state_dict"]
    return all(name in state and bool(state[name].isfinite().all()) for name in names)


def _describe(rows: Sequence[NonFiniteRows], parameters: Sequence[str]) -> str:
    if all(bad.cause == CAUSES[-1] for bad in rows):
        tasks = ", ".join(dict.fromkeys(bad.task for bad in rows)) or "none"
        return f"losses are finite, gradients of {_few(parameters)} are not (tasks: {tasks})"
    return "; ".join(
        f"{bad.task} rows {_few(bad.rows)} of rank {bad.rank}: {bad.cause} not finite"
        for bad in rows[:SHOWN]
    )


def _few(items: Sequence[Any]) -> str:
    more = f" and {len(items) - SHOWN} more" if len(items) > SHOWN else ""
    return ", ".join(map(str, items[:SHOWN])) + more
