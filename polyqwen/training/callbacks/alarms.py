"""Warnings about loss spikes and collapsed embeddings."""

import copy
import logging
import math
from collections import defaultdict
from statistics import median
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor

from polyqwen.metrics.space import effective_rank
from polyqwen.training.callbacks.base import StepCallback, check_least, log_metrics
from polyqwen.training.module import EmbeddingModule

log = logging.getLogger(__name__)
WINDOWS = 50  # what a task's usual loss is the median of
LEAST = 10  # of these, before a loss can be called unusual
ROWS = 128  # embeddings that the effective rank is taken of
KEPT = ("usual", "first", "since", "ringing")  # attributes in the checkpoint
WAY_OUT = {
    "spike": "go back to the checkpoint before it, lower the learning rates or callbacks."
    "gradient_clip.schedule.end, or look at the rows of these steps",
    "gap": "raise the temperature or the number of negatives (data.rows_per_task, "
    "large_batch=cached), lower the learning rates, or check that pairs match",
    "rank": "raise the temperature, lower the learning rates, or add losses that spread "
    "embeddings out (polyqwen.losses.uniformity, polyqwen.losses.variance)",
}


class Alarms(StepCallback):
    """Looks at losses, similarity gaps and the effective rank every few steps; warns, never stops.

    - *Spike*: a task's largest loss since the last look is above ``spike`` times its usual one (the
      median of the means of up to 50 looks), and above it by a quarter of its first. Tasks are
      looked at apart and unweighted: a phase switch or a boost is no spike.
    - *Collapse, gap*: a task's mean cosine of matching minus other pairs is below ``min_gap``.
    - *Collapse, rank*: the effective rank (Roy and Vetterli, 2007) of a batch's embeddings is below
      ``min_rank``.

    Collapse is looked for `patience` steps after a task's first, since random weights start like
    this. What has been said is said again once it was fine in between.

    Args:
        every: optimizer steps between looks, >= 1.
        spike: factor over the usual loss, > 1.
        min_gap: in [-2, 2].
        min_rank: >= 1.
        patience: optimizer steps, >= 0.
    """

    def __init__(
        self,
        every: int = 20,
        spike: float = 3.0,
        min_gap: float = 0.01,
        min_rank: float = 2.0,
        patience: int = 400,
    ) -> None:
        for name, value, least in (
            ("every", every, 1),
            ("min_gap", min_gap, -2),
            ("min_rank", min_rank, 1),
            ("patience", patience, 0),
        ):
            check_least(f"alarms.{name}", value, least)
        if spike <= 1:
            raise ValueError(f"alarms.spike must be above 1, got {spike}")
        self.every, self.spike, self.patience = every, spike, patience
        self.min_gap, self.min_rank = min_gap, min_rank
        self.usual: dict[str, list[float]] = {}  # by loss: mean losses of the last looks
        self.first: dict[str, float] = {}  # by loss
        self.since: dict[str, int] = {}  # by task: its first step
        self.ringing: list[str] = []  # alarms that have been said and are not over
        self._losses: dict[str, list[Tensor]] = defaultdict(list)  # since the last look
        self._gaps: dict[str, list[Tensor]] = defaultdict(list)

    def state_dict(self) -> dict[str, Any]:
        """What is usual, for the checkpoint."""
        return copy.deepcopy({name: getattr(self, name) for name in KEPT})

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """What is usual, from the checkpoint."""
        for name, value in state_dict.items():
            setattr(self, name, value)

    def after_micro_batch(self, trainer: pl.Trainer, module: EmbeddingModule) -> None:
        """Keeps the micro-batch's scalars, on their device."""
        record = module.record
        for name, output in record.outputs.items():
            self._losses[name].append(output.total)
        for task, gap in record.gaps.items():
            self._gaps[task].append(gap)
            self.since.setdefault(task, module.step)

    def after_step(self, trainer: pl.Trainer, module: EmbeddingModule) -> None:
        """Looks when it is time."""
        if module.step % self.every == 0:
            self._look(trainer, module, module.record.embeddings)

    def _look(self, trainer: pl.Trainer, module: EmbeddingModule, embeddings: Tensor) -> None:
        """All losses and gaps are of all ranks' rows, so ranks agree; the first one speaks."""
        wrong: dict[str, str] = {}
        for name, kept in self._losses.items():
            wrong |= self._spike(name, torch.stack(kept).float().cpu())
        old = [t for t in self._gaps if module.step - self.since[t] >= self.patience]
        for task in old:
            gap = float(torch.stack(self._gaps[task]).nanmean())
            if gap < self.min_gap:
                wrong[f"gap/{task}"] = (
                    f"matching and other pairs of {task} look alike (similarity gap {gap:.3f})"
                )
        if old and len(embeddings) > 2 * self.min_rank:
            rank = effective_rank(embeddings[:ROWS].double().cpu())
            if rank < self.min_rank:
                wrong["rank"] = f"embeddings collapse (effective rank {rank:.1f} in a batch)"
        self._losses.clear()
        self._gaps.clear()
        self._ring(trainer, module, wrong)

    def _spike(self, name: str, losses: Tensor) -> dict[str, str]:
        """Compares with what is usual, then adds to it; a spike itself is not usual."""
        losses = losses[losses.isfinite()]  # others are the business of `NonFiniteGuard`
        if not len(losses):
            return {}
        mean, largest = float(losses.mean()), float(losses.max())
        first, usual = self.first.setdefault(name, mean), self.usual.setdefault(name, [])
        level = median(usual) if len(usual) >= LEAST else math.inf
        spike = largest > self.spike * level and largest > level + first / 4
        usual.append(min(mean, self.spike * level) if spike else mean)
        del usual[:-WINDOWS]
        if not spike:
            return {}
        return {f"spike/{name}": f"the loss of {name} was {largest:.3g}, usually {level:.3g}"}

    def _ring(self, trainer: pl.Trainer, module: EmbeddingModule, wrong: dict[str, str]) -> None:
        new = [name for name in wrong if name not in self.ringing]
        self.ringing = list(wrong)
        if not trainer.is_global_zero:
            return
        for name in new:
            kind = name.partition("/")[0]
            log.warning("step %d: %s; %s", module.step, wrong[name], WAY_OUT[kind])
            log_metrics(trainer, {f"alarm/{name}": 1.0}, module.step)
