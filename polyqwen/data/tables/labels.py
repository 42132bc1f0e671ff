"""Partially labelled texts: which rows of a shared folder belong to which of its tasks.

The rows of a task are a table of their own, kept beside the prepared one of the whole folder.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset

from polyqwen.atomic_files import atomic_write
from polyqwen.data.rows.parse import brief
from polyqwen.data.rows.task import Task
from polyqwen.data.rows.types import RowError
from polyqwen.data.tables.cache import file_of, kept_json

Labels = Mapping[str, str]  # label → class


class LabelBook:
    """Finds the tasks of a row by its labels.

    Tasks that read the same columns of the same folder form a family. The sampler draws a task's
    *stream*: the rows that have its label. A row takes part in the losses of all tasks of its
    family that it has a label for, whichever stream drew it, so one pass through the encoder serves
    them all. A task of the family without a label takes all rows, or with ``unlabelled_only`` those
    without any label that the run's tasks learn.

    Args:
        tasks: name -> task, all of the run.
    """

    def __init__(self, tasks: Mapping[str, Task]) -> None:
        self.tasks = dict(tasks)
        self._family: dict[str, tuple[str, ...]] = {}
        for name in tasks:
            mine = self._columns(name)
            same = [other for other in tasks if mine and self._columns(other) == mine]
            self._family[name] = tuple(same) or (name,)
        self._learnt = {name: set(self.known(name)) for name in tasks}
        self._index = {
            name: {value: i for i, value in enumerate(task.classes)} for name, task in tasks.items()
        }

    def _columns(self, name: str) -> tuple[object, ...]:
        task = self.tasks[name]
        if "labels" not in task.fields:
            return ()
        return (task.folder or name, *sorted(task.fields.items()))

    def shares_rows(self, name: str) -> bool:
        """Whether the task reads a folder of partially labelled rows."""
        return "labels" in self.tasks[name].fields

    def tasks_of(self, stream: str, labels: Labels) -> list[str]:
        """Tasks whose loss a row that ``stream`` drew takes part in; its own is one of them."""
        if not self.shares_rows(stream):
            return [stream]
        return [name for name in self._family[stream] if self._takes(name, labels)]

    def class_of(self, name: str, labels: Labels) -> int | None:
        """The row's class in a task, counted in the order of ``classes``; None without a label."""
        label = self.tasks[name].label
        return None if label is None else self._index[name][labels[label]]

    def known(self, name: str) -> dict[str, tuple[str, ...]]:
        """Label -> classes, of the task's family."""
        family = [self.tasks[other] for other in self._family[name]]
        return {task.label: task.classes for task in family if task.label is not None}

    def stream(self, name: str, table: Dataset) -> Dataset:
        """The rows that the sampler draws for a task, out of its folder's; possibly none."""
        if not self.shares_rows(name):
            return table
        return subset(table, lambda labels: self._takes(name, labels))

    def missing(self, name: str, table: Dataset) -> str:
        """What to say of a task that has no row in a folder's table."""
        label = self.tasks[name].label
        if label is None:
            return "every row has a label; use unlabelled_only: false to draw them all"
        there = sorted({found for labels, _ in label_counts(table) for found in labels})
        near = get_close_matches(label, there, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"labels there: {', '.join(there) or '–'}"
        return f"no row has the label {label!r}; {hint}"

    def _takes(self, name: str, labels: Labels) -> bool:
        task = self.tasks[name]
        if task.label is not None:
            return task.label in labels
        return not (task.unlabelled_only and labels.keys() & self._learnt[name])


def check_classes(labels: Labels, known: Mapping[str, Sequence[str]], where: str) -> None:
    """Raises RowError for a class that its task does not know; other labels are let pass."""
    for label, value in labels.items():
        if label in known and value not in known[label]:
            near = get_close_matches(value[:100], known[label], n=1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            what = (
                f"{brief(value)} is no class of the label {label}; {hint}its classes are "
                f"{', '.join(known[label])}: mend the row, or set tasks.TASK.classes"
            )
            raise RowError(where, "unknown class", what, label)


def label_counts(table: Dataset) -> list[tuple[dict[str, str], int]]:
    """The distinct labellings of a table and their rows, in the order of their first rows.

    The table is read once in its life, batch by batch.
    """
    return [(json.loads(text), rows) for text, rows in _counts(table)]


def _counts(table: Dataset) -> list[tuple[str, int]]:
    def count() -> list[tuple[str, int]]:
        found = table.data.column("labels").value_counts().to_pylist()
        return [(entry["values"], entry["counts"]) for entry in found]

    return kept_json(table, "labels", count)


def subset(table: Dataset, wanted: Callable[[Mapping[str, str]], bool]) -> Dataset:
    """The rows whose labels are ``wanted``, memory-mapped as the whole table is.

    An index over the table would not do: costs and contents are read from its columns directly.

    Args:
        table: read from one Arrow file.
        wanted: label → class, to whether rows with these labels are taken.
    """
    kinds = [text for text, _ in _counts(table)]
    chosen = [text for text in kinds if wanted(json.loads(text))]
    if len(chosen) == len(kinds):
        return table
    whole = file_of(table)
    assert whole is not None
    digest = hashlib.blake2b("\n".join(chosen).encode(), digest_size=8).hexdigest()
    path = whole.with_name(f"{whole.stem}-{digest}.arrow")
    if not path.exists():
        with atomic_write(path) as temporary:
            _write(temporary, table, chosen)
    return Dataset.from_file(str(path))


def _write(path: Path, table: Dataset, chosen: Sequence[str]) -> None:
    """Batch by batch, so that memory does not grow with the table."""
    arrow: pa.Table = table.data.table
    schema = arrow.schema.remove_metadata()
    values = pa.array(chosen, pa.string())
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, schema) as writer:
        for batch in arrow.to_batches():
            kept = batch.filter(pc.is_in(batch.column("labels"), value_set=values))
            if len(kept):
                writer.write_batch(kept.replace_schema_metadata(None))
