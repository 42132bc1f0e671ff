"""The data of a run for the trainer: the curriculum's train loader, evaluation loaders."""

import os
import signal
import threading
import time
from functools import partial
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from torch.utils.data import DataLoader

from polyqwen.data.batch import Batch, moved
from polyqwen.data.collator import Collator
from polyqwen.data.images.embedded import FOLDER
from polyqwen.data.images.images import Pictures, Resize
from polyqwen.data.rows.bad_rows import BadRows
from polyqwen.data.rows.sources import Source
from polyqwen.data.rows.task import Task
from polyqwen.data.sampling.batches import RowBatches
from polyqwen.data.sampling.curriculum import Curriculum
from polyqwen.data.sampling.permutation import Rows
from polyqwen.data.sampling.shares import Sampling, Shares
from polyqwen.data.sampling.train_rows import TrainRows
from polyqwen.data.tables.dataset import MultiTaskDataset
from polyqwen.data.tables.splits import Splits, View
from polyqwen.data.tokens import Tokens

OUTLIVED = 120  # seconds that a loader process lives on after a signal
LOOK = 1.0  # seconds between its looks at the run


class CurriculumDataModule(pl.LightningDataModule):
    """Feeds tasks by the curriculum's shares; splits ``dev`` and ``test`` task by task.

    Args:
        source: finds the rows.
        tasks: task -> its columns and sizes.
        tokens: tokenizer and prefixes.
        curriculum: shares by optimizer step.
        root: folder that picture paths are relative to; None takes the source's.
        batch_size: rows per process and micro-batch, divided by share among the tasks without a
            number of their own; None if all have one.
        rows_per_task: rows per process and micro-batch of each task that names no batch_size
            itself: one number for all, or task -> number; None, for all or for one, divides
            `batch_size`.
        eval_batch_size: rows per batch in evaluation.
        eval_rows: rows of each task used in validation while training; None for all of ``dev``.
        sampling: how tasks share a step; None takes the curriculum's shares as they are.
        seed: of the order of rows.
        cache: folder of prepared tables.
        chunk_tokens: padded tokens per encoder pass; see `Collator`.
        pad_to_multiple: of the lengths of encoder passes; see `Collator`.
        separate: embed a text once for each of its tasks; see `Collator`.
        patch_size: side in pixels of the patches that the model reads.
        min_visual_tokens: smaller pictures are enlarged.
        max_visual_tokens: cap over what the tasks allow.
        picture_cache_mb: megabytes of decoded pictures kept per process.
        resize: torch or pillow; see `Pictures`.
        num_workers: loader processes; 0 loads in the training process.
        trusted_rows: rows of each task taken out of ``dev`` for strategies that learn from them;
            see `trusted_split`.
        train_on_trusted: train on them too; a control, for runs whose weighting does not use them.
        bad_rows: "error" or "skip"; see `BadRows`.
        max_bad_share: cap of "skip", in [0, 1].
        bad_pictures: what ``bad_rows`` was called in runs of before, if theirs is evaluated.
    """

    def __init__(
        self,
        source: Source,
        tasks: dict[str, Task],
        tokens: Tokens,
        curriculum: Curriculum,
        *,
        root: str | Path | None = None,
        batch_size: int | None = None,
        rows_per_task: int | dict[str, int | None] | None = None,
        eval_batch_size: int = 64,
        eval_rows: int | None = None,
        sampling: Sampling | None = None,
        seed: int = 0,
        cache: str | Path = ".cache",
        chunk_tokens: int = 4096,
        pad_to_multiple: int = 1,
        separate: bool = False,
        patch_size: int = 14,
        min_visual_tokens: int = 1,
        max_visual_tokens: int | None = None,
        picture_cache_mb: int = 256,
        resize: Resize = "torch",
        num_workers: int = 0,
        trusted_rows: int = 0,
        train_on_trusted: bool = False,
        bad_rows: str = "error",
        max_bad_share: float = 0.01,
        bad_pictures: str | None = None,
    ) -> None:
        super().__init__()
        self.tasks, self.tokens, self.num_workers = tasks, tokens, num_workers
        self.eval_batch_size, self.eval_rows = eval_batch_size, eval_rows
        self.train_rows = TrainRows(
            tasks, curriculum, sampling or Shares(), batch_size, rows_per_task, seed
        )
        self.pictures = Pictures(
            Path(root or source.root),
            patch_size=patch_size,
            min_visual_tokens=min_visual_tokens,
            max_visual_tokens=max_visual_tokens,
            cache_mb=picture_cache_mb,
            resize=resize,
            store=Path(cache) / FOLDER,
        )
        self.splits = Splits(
            source,
            tasks,
            tokens,
            self.pictures,
            Path(cache) / "tables",
            BadRows(bad_pictures or bad_rows, max_bad_share).check(),
            trusted_rows,
            train_on_trusted,
        )
        self.collator = Collator(
            tokens,
            self.pictures,
            visual_tokens={name: task.visual_tokens for name, task in tasks.items()},
            book=self.splits.book,
            separate=separate,
            chunk_tokens=chunk_tokens,
            pad_to_multiple=pad_to_multiple,
        )

    def prepare_data(self) -> None:
        """Prepares all splits, in one process; the others find them in the cache."""
        for split in ("train", "dev", "test"):
            self.splits.tables(split)
        self.splits.fingerprint()

    def transfer_batch_to_device(
        self, batch: Batch, device: torch.device, dataloader_idx: int
    ) -> Batch:
        """See `moved`."""
        return moved(batch, device)

    def train_dataloader(self) -> DataLoader[Any]:
        """Micro-batches of this process from the trainer's current step on."""
        trainer = self.trainer
        assert trainer is not None
        dataset = MultiTaskDataset({task: self.splits.trained(task) for task in self.tasks})
        self.train_rows.check_horizon(self.num_workers, trainer.accumulate_grad_batches)
        sampler = self.train_rows.micro_batches(
            dataset,
            trainer.world_size,
            trainer.global_rank,
            trainer.accumulate_grad_batches,
            trainer.max_steps,
        )
        sampler.start_at(trainer.global_step)
        return self._loader(dataset, sampler)

    def state_dict(self) -> dict[str, Any]:
        """What the sampling has learnt, for the checkpoint."""
        return {"sampling": self.train_rows.sampling.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Goes on from a checkpoint."""
        self.train_rows.sampling.load_state_dict(state_dict.get("sampling", {}))

    def val_dataloader(self) -> list[DataLoader[Any]]:
        """One loader per view of ``dev``."""
        return [self.eval_loader("dev", view, self.eval_rows) for view in self.splits.views("dev")]

    def test_dataloader(self) -> list[DataLoader[Any]]:
        """One loader per view of ``test``."""
        return [self.eval_loader("test", view) for view in self.splits.views("test")]

    def eval_loader(self, split: str, view: View, limit: int | None = None) -> DataLoader[Any]:
        """This process's rows of one task, short ones with short ones.

        Args:
            split: train, dev or test.
            view: the task, and what its queries are deprived of.
            limit: at most so many rows, the same random ones each time. (Evenly spaced ones would
                pick all good or all bad pairs of a file in which they alternate.)
        """
        task, ablation = view
        table = self.splits.table(task, split)
        dataset = MultiTaskDataset({task: table}, ablation, self._next(task))
        costs = dataset.costs(task)
        free = self.splits.evaluated(task, split)
        chosen = free[np.random.default_rng(0).permutation(len(free))[:limit]]
        rows = self._own(chosen[np.argsort(costs[chosen], kind="stable")])
        return self._loader(dataset, RowBatches(task, rows, self.eval_batch_size), only=task)

    def _next(self, task: str) -> str | None:
        """The task after this one in their order, the first after the last; None if it is alone."""
        names = list(self.tasks)
        other = names[(names.index(task) + 1) % len(names)]
        return None if other == task else other

    def trusted_batch(self) -> Batch:
        """This process's share of all tasks' trusted rows, as one batch; see `Splits.trusted`."""
        dataset = MultiTaskDataset(self.splits.tables("dev"))
        rows = [(t, r) for t in self.tasks for r in self._own(self.splits.trusted(t)).tolist()]
        return self.collator(dataset.__getitems__(rows))

    def _own(self, rows: Rows) -> Rows:
        """This process's share of some rows."""
        trainer = self.trainer
        return rows[trainer.global_rank :: trainer.world_size] if trainer else rows

    def _loader(
        self, dataset: MultiTaskDataset, batches: Any, only: str | None = None
    ) -> DataLoader[Any]:
        """All tasks' batches from workers that stay, or one task's rows for evaluation."""
        workers = 0 if only else self.num_workers
        return DataLoader(
            dataset,
            batch_sampler=batches,
            collate_fn=partial(self.collator, only=only),
            num_workers=workers,
            persistent_workers=workers > 0,
            worker_init_fn=outlive if workers else None,
            pin_memory=torch.cuda.is_available(),
            generator=torch.Generator(),  # a loader must not draw from the training's numbers
        )


def outlive(worker: int) -> None:
    """Lets a loader process outlive signals that are meant for the run, and end with it.

    Ctrl-C and schedulers tell all processes at once. A loader that obeyed would be missed before
    the run has finished its step and saved; it ends with the run, or a while after the signal.

    A run that was killed tells nobody. Torch's loaders notice, but then wait until somebody has
    taken the batches that they made, for ever if those fill the pipe.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: signal.alarm(OUTLIVED))
    threading.Thread(target=_follow, args=(os.getppid(),), daemon=True).start()


def _follow(run: int) -> None:
    while os.getppid() == run:
        time.sleep(LOOK)
    os._exit(1)
