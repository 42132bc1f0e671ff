"""The data of a run: prepared tables, the curriculum's train loader, evaluation loaders."""

import logging
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

import lightning.pytorch as pl
import numpy as np
import torch
from datasets import Dataset, concatenate_datasets
from torch.utils.data import DataLoader

from polyqwen.data.adaptive_sampling import AdaptiveSampling
from polyqwen.data.bad_rows import BadRows
from polyqwen.data.batch import Batch
from polyqwen.data.collator import Collator
from polyqwen.data.curriculum import Curriculum
from polyqwen.data.dataset import OF_PICTURES, Ablation, MultiTaskDataset
from polyqwen.data.embedded import FOLDER
from polyqwen.data.eval_batches import RowBatches
from polyqwen.data.fingerprint import fingerprint
from polyqwen.data.labels import LabelBook
from polyqwen.data.permutation import Rows
from polyqwen.data.pictures import Pictures, Resize
from polyqwen.data.prepare import prepare
from polyqwen.data.sampler import MicroBatchSampler, StepSampler
from polyqwen.data.sampling import Sampling, Shares
from polyqwen.data.sources import Source
from polyqwen.data.task import Task
from polyqwen.data.tokens import Tokens
from polyqwen.data.trusted import trusted_split
from polyqwen.data.workers import outlive

log = logging.getLogger(__name__)
View = tuple[str, Ablation]  # a task, and what its queries are deprived of


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
            itself: one number for all, or task -> number; None divides `batch_size`.
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
        rows_per_task: int | dict[str, int] | None = None,
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
        self.source, self.tasks, self.tokens, self.curriculum = source, tasks, tokens, curriculum
        self.batch_size, self.rows_per_task = batch_size, rows_per_task
        self.eval_batch_size, self.seed = eval_batch_size, seed
        self.eval_rows, self.num_workers = eval_rows, num_workers
        self.sampling = sampling or Shares()
        self._steps: StepSampler | None = None  # of the training in progress
        if trusted_rows < 0:
            raise ValueError(f"data.trusted_rows must be >= 0, got {trusted_rows}")
        if train_on_trusted and not trusted_rows:
            raise ValueError("data.train_on_trusted needs data.trusted_rows, which is 0")
        self.trusted_rows, self.train_on_trusted = trusted_rows, train_on_trusted
        self.cache = Path(cache)
        self.bad_rows = BadRows(bad_pictures or bad_rows, max_bad_share).check()
        self.pictures = Pictures(
            Path(root or source.root),
            patch_size=patch_size,
            min_visual_tokens=min_visual_tokens,
            max_visual_tokens=max_visual_tokens,
            cache_mb=picture_cache_mb,
            resize=resize,
            store=self.cache / FOLDER,
        )
        self.book = LabelBook(tasks)
        self.collator = Collator(
            tokens,
            self.pictures,
            visual_tokens={name: task.visual_tokens for name, task in tasks.items()},
            book=self.book,
            separate=separate,
            chunk_tokens=chunk_tokens,
            pad_to_multiple=pad_to_multiple,
        )
        self.ablations: dict[str, Sequence[Ablation]] = {"dev": [], "test": []}
        self._split: dict[str, tuple[Rows, Rows]] = {}
        self._tables: dict[tuple[str, str], Dataset] = {}

    def views(self, split: str) -> list[View]:
        """What is evaluated of a split: its tasks, then under ablations those that can be.

        A task without a row in the split (a label that nothing there has) is left out.
        """
        tasks = [name for name in self.tasks if len(self.table(name, split))]
        plain: list[View] = [(task, "none") for task in tasks]
        return plain + [
            (name, ablation)
            for name in tasks
            for ablation in self.ablations.get(split, [])
            if self._bears(self.tasks[name], ablation)
        ]

    @staticmethod
    def _bears(task: Task, ablation: Ablation) -> bool:
        """Whether a task's queries have what the ablation takes, and something else besides."""
        if ablation == "no_question" and not task.asked:
            return False
        return task.pictured or ablation not in OF_PICTURES

    def table(self, task: str, split: str) -> Dataset:
        """The prepared rows of a task's split, made on first use.

        Raises:
            ValueError: there are no rows, but for a task with a label outside of ``train``.
        """
        if (task, split) not in self._tables:
            reader = self.source.reader(self.tasks[task].folder or task, split)
            whole = prepare(
                reader,
                self.tasks[task],
                self.tokens,
                self.pictures,
                self.cache / "tables",
                self.bad_rows,
                self.book.known(task),
            )
            table = self._tables[task, split] = self.book.stream(task, whole)
            if not len(table) and split == "train":
                raise ValueError(f"task {task}: {reader}: {self.book.missing(task, whole)}")
            if not len(table):
                log.info("task %s has no rows in %s: it is not evaluated there", task, split)
        return self._tables[task, split]

    def tables(self, split: str) -> dict[str, Dataset]:
        """The prepared rows of all tasks."""
        return {task: self.table(task, split) for task in self.tasks}

    def prepare_data(self) -> None:
        """Prepares all splits, in one process; the others find them in the cache."""
        for split in ("train", "dev", "test"):
            self.tables(split)
        self.fingerprint()

    def fingerprint(self) -> dict[str, str]:
        """``task/split`` -> fingerprint of what training and its validations read."""
        return {
            f"{task}/{split}": fingerprint(self.table(task, split))
            for task in self.tasks
            for split in ("train", "dev")
        }

    def transfer_batch_to_device(
        self, batch: Batch, device: torch.device, dataloader_idx: int
    ) -> Batch:
        """On the CPU a batch is in its place; walking through it took a tenth of a ms."""
        if device.type == "cpu":
            return batch
        return cast(Batch, super().transfer_batch_to_device(batch, device, dataloader_idx))

    def train_dataloader(self) -> DataLoader[Any]:
        """Micro-batches of this process from the trainer's current step on."""
        trainer = self.trainer
        assert trainer is not None
        world, accumulate = trainer.world_size, trainer.accumulate_grad_batches
        cells = world * accumulate
        dataset = MultiTaskDataset({task: self._trained(task) for task in self.tasks})
        rows = self.rows_per_task
        default = rows if isinstance(rows, dict) else dict.fromkeys(self.tasks, rows)
        own = {name: task.batch_size or default.get(name) for name, task in self.tasks.items()}
        self._check_horizon(accumulate)
        easy = [name for name, task in self.tasks.items() if task.easy_first]
        self._steps = StepSampler(
            {task: len(table) for task, table in dataset.tables.items()},
            self.curriculum,
            None if self.batch_size is None else self.batch_size * cells,
            self.seed,
            {name: count * cells for name, count in own.items() if count},
            self.sampling,
            {name: dataset.easy_first(name, self.seed) for name in easy},
        )
        sampler = MicroBatchSampler(
            self._steps,
            accumulate=accumulate,
            rank=trainer.global_rank,
            world=world,
            max_steps=trainer.max_steps if trainer.max_steps > 0 else None,
            costs=dataset.costs_at,
        )
        sampler.start_at(trainer.global_step)
        return self._loader(dataset, sampler)

    def _trained(self, task: str) -> Dataset:
        """The rows of a task's training."""
        table = self.table(task, "train")
        if not self.train_on_trusted:
            return table
        trusted = self.table(task, "dev").select(self._dev_rows(task)[0])
        return concatenate_datasets([table, trusted])

    def resample(self, step: int, values: Mapping[str, float]) -> dict[str, float]:
        """Lets an adaptive sampling decide at the end of a window; see `AdaptiveSampling.decide`.

        Returns:
            Task -> factor.
        """
        assert isinstance(self.sampling, AdaptiveSampling) and self._steps is not None
        tasks = self._steps.tasks
        factors = self.sampling.decide(step, [values[task] for task in tasks])
        self._steps.refresh()
        return dict(zip(tasks, factors, strict=True))

    def _check_horizon(self, accumulate: int) -> None:
        """Shares must not change for batches that loaders have fetched already."""
        if not isinstance(self.sampling, AdaptiveSampling):
            return
        # a worker has two batches under way, and the trainer asks for one more
        ahead = -(-(2 * self.num_workers + 2) // accumulate)
        if self.sampling.window < ahead:
            raise ValueError(
                f"data.sampling.window={self.sampling.window} is shorter than the {ahead} steps "
                f"that {self.num_workers} workers fetch ahead; raise it, or use fewer workers"
            )

    def state_dict(self) -> dict[str, Any]:
        """What the sampling has learnt, for the checkpoint."""
        return {"sampling": self.sampling.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Goes on from a checkpoint."""
        self.sampling.load_state_dict(state_dict.get("sampling", {}))

    def val_dataloader(self) -> list[DataLoader[Any]]:
        """One loader per view of ``dev``."""
        return [self.eval_loader("dev", view, self.eval_rows) for view in self.views("dev")]

    def test_dataloader(self) -> list[DataLoader[Any]]:
        """One loader per view of ``test``."""
        return [self.eval_loader("test", view) for view in self.views("test")]

    def eval_loader(self, split: str, view: View, limit: int | None = None) -> DataLoader[Any]:
        """This process's rows of one task, short ones with short ones.

        Args:
            split: train, dev or test.
            view: the task, and what its queries are deprived of.
            limit: at most so many rows, the same random ones each time. (Evenly spaced ones would
                pick all good or all bad pairs of a file in which they alternate.)
        """
        task, ablation = view
        dataset = MultiTaskDataset({task: self.table(task, split)}, ablation, self._next(task))
        costs = dataset.costs(task)
        free = np.arange(len(costs)) if split != "dev" else self._dev_rows(task)[1]
        chosen = free[np.random.default_rng(0).permutation(len(free))[:limit]]
        rows = self._own(chosen[np.argsort(costs[chosen], kind="stable")])
        return self._loader(dataset, RowBatches(task, rows, self.eval_batch_size), only=task)

    def _next(self, task: str) -> str | None:
        """The task after this one in their order, the first after the last; None if it is alone."""
        names = list(self.tasks)
        other = names[(names.index(task) + 1) % len(names)]
        return None if other == task else other

    def trusted_batch(self) -> Batch:
        """This process's share of all tasks' trusted rows, as one batch.

        Raises:
            ValueError: ``trusted_rows`` is 0.
        """
        if not self.trusted_rows or self.train_on_trusted:
            raise ValueError(
                "the weighting learns from trusted rows: set data.trusted_rows above 0 and "
                "data.train_on_trusted to false"
            )
        dataset = MultiTaskDataset(self.tables("dev"))
        rows = [(t, r) for t in self.tasks for r in self._own(self._dev_rows(t)[0]).tolist()]
        return self.collator(dataset.__getitems__(rows))

    def _dev_rows(self, task: str) -> tuple[Rows, Rows]:
        """Trusted rows, and those left to choose checkpoints by."""
        if task not in self._split:
            table = self.table(task, "dev")
            count = self.trusted_rows if len(table) else 0
            self._split[task] = trusted_split(table, count)
        return self._split[task]

    def _own(self, rows: Rows) -> Rows:
        """This process's share of some rows."""
        rank, world = (
            (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        )
        return rows[rank::world]

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
