"""The prepared rows of all tasks: which are trained on, trusted and evaluated.

Trusted rows are a few held-out ones that may steer the training: never trained on (but as a
control), never used to judge it.
"""

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset, concatenate_datasets
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from polyqwen.data.images.images import Pictures
from polyqwen.data.rows.bad_rows import BadRows
from polyqwen.data.rows.sources import Source
from polyqwen.data.rows.task import Task
from polyqwen.data.rows.types import Reader
from polyqwen.data.sampling.permutation import Rows
from polyqwen.data.tables.cache import fingerprint
from polyqwen.data.tables.dataset import OF_PICTURES, Ablation
from polyqwen.data.tables.labels import LabelBook
from polyqwen.data.tables.negatives import given_negatives
from polyqwen.data.tables.prepare import prepare, prepared_sample, table_path
from polyqwen.data.tokens import Tokens

log = logging.getLogger(__name__)
View = tuple[str, Ablation]  # a task, and what its queries are deprived of


class Splits:
    """Tables of ``train``, ``dev`` and ``test``, task by task, each made on first use.

    Args:
        source: finds the rows.
        tasks: task -> its columns and sizes.
        tokens: tokenizer and prefixes.
        pictures: opens them.
        cache: folder of prepared tables.
        bad_rows: what becomes of rows that cannot be used.
        trusted_rows: rows of each task taken out of ``dev``, >= 0; see `trusted_split`.
        train_on_trusted: train on them too.

    Attributes:
        book: which rows are whose, by their labels.
        ablations: split -> what its queries are deprived of beside the plain evaluation.

    Raises:
        ValueError: trusted rows below 0, or none to train on.
    """

    def __init__(
        self,
        source: Source,
        tasks: dict[str, Task],
        tokens: Tokens,
        pictures: Pictures,
        cache: Path,
        bad_rows: BadRows,
        trusted_rows: int = 0,
        train_on_trusted: bool = False,
    ) -> None:
        if trusted_rows < 0:
            raise ValueError(f"data.trusted_rows must be >= 0, got {trusted_rows}")
        if train_on_trusted and not trusted_rows:
            raise ValueError("data.train_on_trusted needs data.trusted_rows, which is 0")
        self.source, self.tasks, self.tokens, self.pictures = source, tasks, tokens, pictures
        self.cache, self.bad_rows = cache, bad_rows
        self.trusted_rows, self.train_on_trusted = trusted_rows, train_on_trusted
        self.book = LabelBook(tasks)
        self.ablations: dict[str, Sequence[Ablation]] = {"dev": [], "test": []}
        self._tables: dict[tuple[str, str], Dataset] = {}
        self._dev: dict[str, tuple[Rows, Rows]] = {}

    def table(self, task: str, split: str) -> Dataset:
        """The prepared rows of a task's split.

        Raises:
            ValueError: there are no rows, but for a task with a label outside of ``train``; or no
                row to train on has a negative, and they are the task's only ones.
        """
        if (task, split) not in self._tables:
            reader = self.source.reader(self.tasks[task].folder or task, split)
            whole = prepare(reader, *self._prepared_from(task))
            table = self._tables[task, split] = self.book.stream(task, whole)
            if not len(table) and split == "train":
                raise ValueError(f"task {task}: {reader}: {self.book.missing(task, whole)}")
            if self.tasks[task].negatives_from == "given" and split == "train":
                self._check_given(task, table, reader)
            if not len(table):
                log.info("task %s has no rows in %s: it is not evaluated there", task, split)
        return self._tables[task, split]

    def _check_given(self, task: str, table: Dataset, reader: Reader) -> None:
        if not given_negatives(table):
            column = self.tasks[task].fields["negatives"]
            raise ValueError(
                f"tasks.{task}.negatives_from=given, but no row of {reader} has a negative in its "
                f"column {column!r}: give the rows some (python -m polyqwen mine finds them), or "
                "choose both"
            )

    def is_prepared(self, task: str, split: str) -> bool:
        """Whether `table` would find the rows prepared, in this run or an earlier one."""
        reader = self.source.reader(self.tasks[task].folder or task, split)
        return table_path(reader, *self._prepared_from(task)).exists()

    def sample(self, task: str, split: str, most: int) -> Dataset:
        """The first rows of a task's split that can be used, prepared in memory; nothing is kept.

        Args:
            task: name.
            split: train, dev or test.
            most: rows to look at, those of other tasks of the folder too, >= 1.
        """
        reader = self.source.reader(self.tasks[task].folder or task, split)
        own, tokens, pictures, _, _, classes = self._prepared_from(task)
        return prepared_sample(reader, own, tokens, pictures, classes, most)

    def _prepared_from(
        self, task: str
    ) -> tuple[Task, Tokens, Pictures, Path, BadRows, dict[str, tuple[str, ...]]]:
        """What a task's tables depend on beside their readers."""
        known = self.book.known(task)
        return self.tasks[task], self.tokens, self.pictures, self.cache, self.bad_rows, known

    def tables(self, split: str) -> dict[str, Dataset]:
        """The prepared rows of all tasks."""
        return {task: self.table(task, split) for task in self.tasks}

    def fingerprint(self) -> dict[str, str]:
        """``task/split`` -> fingerprint of what training and its validations read."""
        return {
            f"{task}/{split}": fingerprint(self.table(task, split))
            for task in self.tasks
            for split in ("train", "dev")
        }

    def trained(self, task: str) -> Dataset:
        """The rows of a task's training."""
        table = self.table(task, "train")
        if not self.train_on_trusted:
            return table
        trusted = self.table(task, "dev").select(self._dev_rows(task)[0])
        return concatenate_datasets([table, trusted])

    def trusted(self, task: str) -> Rows:
        """The rows of ``dev`` that a weighting may learn from.

        Raises:
            ValueError: there are none, or they are trained on.
        """
        if not self.trusted_rows or self.train_on_trusted:
            raise ValueError(
                "the weighting learns from trusted rows: set data.trusted_rows above 0 and "
                "data.train_on_trusted to false"
            )
        return self._dev_rows(task)[0]

    def evaluated(self, task: str, split: str) -> Rows:
        """The rows of a split that metrics are computed of: in ``dev`` those not trusted."""
        if split == "dev":
            return self._dev_rows(task)[1]
        return np.arange(len(self.table(task, split)))

    def _dev_rows(self, task: str) -> tuple[Rows, Rows]:
        """Trusted rows, and those left to choose checkpoints by."""
        if task not in self._dev:
            table = self.table(task, "dev")
            self._dev[task] = trusted_split(table, self.trusted_rows if len(table) else 0)
        return self._dev[task]

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
            if _bears(self.tasks[name], ablation)
        ]


def _bears(task: Task, ablation: Ablation) -> bool:
    """Whether a task's queries have what the ablation takes, and something else besides."""
    if ablation == "no_question" and not task.asked:
        return False
    return task.pictured or ablation not in OF_PICTURES


def trusted_split(table: Dataset, count: int, seed: int = 0) -> tuple[Rows, Rows]:
    """Divides a split so that no picture and no text query is on both sides.

    Rows that share a picture stay together, and without pictures rows that share a text of either
    side (answers such as "red" repeat under pictures and tie nothing there).

    Args:
        table: the prepared rows of one task.
        count: rows to trust; whole groups are taken until there are so many, >= 0.
        seed: of the choice of groups.

    Returns:
        The trusted rows and the others, each in the order of the table.

    Raises:
        ValueError: fewer than ``count`` rows would be left on either side.
    """
    rows = np.arange(len(table))
    if count == 0:
        return rows[:0], rows
    groups = _groups(*_contents(table))
    sizes = np.bincount(groups)
    order = np.random.default_rng(seed).permutation(len(sizes))
    before = np.cumsum(sizes[order]) - sizes[order]  # rows of the groups taken earlier
    chosen = np.isin(groups, order[before < count])
    trusted, others = rows[chosen], rows[~chosen]
    if min(len(trusted), len(others)) < count:
        raise ValueError(
            f"data.trusted_rows={count} would leave {len(others)} of {len(table)} dev rows to "
            "choose checkpoints by; give more dev rows or trust fewer"
        )
    return trusted, others


def _contents(table: Dataset) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """What ties each row to others, as two numbers: (rows,) and (rows,); those of texts are < 0."""
    sides = [table.data.column(name) for name in ("query", "document")]
    first, second = _numbered([pc.struct_field(s, "image").cast(pa.string()) for s in sides])
    texts = [-1 - numbers for numbers in _numbered([pc.struct_field(s, "key") for s in sides])]
    # with one picture it stands twice
    one, other = np.where(first < 0, second, first), np.where(second < 0, first, second)
    return np.where(one < 0, texts[0], one), np.where(one < 0, texts[1], other)


def _numbered(columns: Sequence[pa.ChunkedArray]) -> list[NDArray[np.int64]]:
    """Equal values of columns of one length get equal numbers >= 0, null gets -1."""
    whole = pa.concat_arrays([chunk for column in columns for chunk in column.chunks])
    codes = pc.fill_null(whole.dictionary_encode().indices, -1)
    return np.split(np.asarray(codes, dtype=np.int64), len(columns))


def _groups(one: NDArray[np.int64], other: NDArray[np.int64]) -> NDArray[np.int64]:
    """A number for each row, equal for rows tied over any chain, in the order of first rows."""
    contents, nodes = np.unique(np.concatenate([one, other]), return_inverse=True)
    ends = np.split(nodes, 2)
    ties = coo_array((np.ones(len(one), bool), (ends[0], ends[1])), shape=(len(contents),) * 2)
    _, part = connected_components(ties, directed=False)
    _, first, group = np.unique(part[ends[0]], return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[group]
