"""Skips steps that are not finite, counts dropped micro-batches, stops a run of nothing else."""

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
    """A run that cannot go on: its losses or gradients are not finite, step after step."""


class NonFiniteGuard(pl.Callback):
    """Counts dropped micro-batches and looks at the gradient norm before every optimizer step.

    A micro-batch whose forward pass is not finite was dropped by the training step (zero loss, no
    gradient); the step's others count, and the divisor stays. A step without any other, or with a
    gradient norm that is not finite, becomes a no-op: gradients are set to None, since zeros would
    still move AdamW. All ranks decide alike: they agree on each micro-batch, and under DDP
    gradients are reduced before. Either is written to ``bad_steps.jsonl`` with the rows and
    parameters at fault; a good step only keeps its micro-batches' records.

    Args:
        max_bad_steps: so many skipped steps in a row stop the run with an error, >= 1.

    Attributes:
        total: skipped steps so far.
        in_a_row: of these, the ones since the last step that was not skipped.
        dropped: micro-batches dropped so far, also in skipped steps.
    """

    def __init__(self, max_bad_steps: int = 10) -> None:
        check_least("nonfinite.max_bad_steps", max_bad_steps)
        self.max_bad_steps = max_bad_steps
        self.in_a_row = 0
        self.total = 0
        self.dropped = 0
        self._records: list[StepRecord] = []  # of this step's micro-batches

    def state_dict(self) -> dict[str, int]:
        """Counters for the checkpoint."""
        return {"in_a_row": self.in_a_row, "total": self.total, "dropped": self.dropped}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Counters from the checkpoint; older ones do not count micro-batches."""
        self.in_a_row, self.total = state_dict["in_a_row"], state_dict["total"]
        self.dropped = state_dict.get("dropped", 0)

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
        records, self._records = self._records, []
        finite = torch.stack([record.finite for record in records])
        dropped = pl_module.gradient_norm.measure(pl_module.parameters(), (~finite).sum())
        norm_is_finite = math.isfinite(pl_module.gradient_norm.value)
        skipped = dropped == len(records) or not norm_is_finite
        self.in_a_row = self.in_a_row + 1 if skipped else 0
        if not (skipped or dropped):
            return
        self.total += skipped
        self.dropped += dropped
        self._report(trainer, pl_module, records, skipped)
        if not skipped:
            return
        for parameter in pl_module.parameters():
            parameter.grad = None
        if self.in_a_row >= self.max_bad_steps:
            raise TooManyBadSteps(
                f"{self.in_a_row} steps in a row had losses or gradients that are not finite (last "
                f"at step {pl_module.step}); {last_good(trainer, pl_module)}; the rows are in "
                f"{Path(trainer.default_root_dir) / FILE}: lower optimizer.backbone_lr, raise the "
                "temperature, or look at the data"
            )

    def _report(
        self,
        trainer: pl.Trainer,
        module: EmbeddingModule,
        records: Sequence[StepRecord],
        skipped: bool,
    ) -> None:
        """One line for the text log, one in the file, numbers for the loggers; a collective."""
        norm, dropped = module.gradient_norm.value, [not bool(record.finite) for record in records]
        searched = {i: r for i, r in enumerate(records) if dropped[i] or not math.isfinite(norm)}
        rows = find_nonfinite_rows(module, searched)
        parameters = [] if math.isfinite(norm) else nonfinite_parameters(module)
        if not trainer.is_global_zero:
            return
        entry: dict[str, Any] = {
            "step": module.step,
            "skipped": skipped,
            "dropped_micro_batches": [i for i, lost in enumerate(dropped) if lost],
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
        lost = f"{sum(dropped)} of {len(dropped)} micro-batches not finite"
        if skipped:
            why = lost if all(dropped) else f"gradient norm {norm}"
            what = f"skipped: {why} ({self.in_a_row} in a row, {self.total} in all)"
        else:
            what = f"goes on without {lost} ({self.dropped} in all)"
        log.warning(
            "step %d %s; %s; all of it in %s",
            *(module.step, what, _describe(rows, parameters), path),
        )
        counts = {"train/skipped_steps": self.total} if skipped else {}
        if any(dropped):
            counts["train/dropped_micro_batches"] = self.dropped
        log_metrics(trainer, counts, module.step)


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
