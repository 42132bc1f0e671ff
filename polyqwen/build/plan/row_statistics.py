"""What rows of a task look like, taken from a few of them or read through once."""

from itertools import islice
from typing import Any, NamedTuple

from datasets import Dataset

from polyqwen.data.images.images import Pictures
from polyqwen.data.rows.parse import labels_of
from polyqwen.data.rows.task import Task
from polyqwen.data.rows.types import Reader, RowError
from polyqwen.data.tables.labels import LabelBook

SAMPLE = 64  # rows of a task that means are taken of


class RowMeans(NamedTuple):
    """Means over rows.

    Attributes:
        given: negatives of a row's own.
        text_tokens: of both sides; None if no text was cut into tokens.
        visual_tokens: of both sides; None if no picture was measured.
    """

    given: float = 0.0
    text_tokens: float | None = None
    visual_tokens: float | None = None


def means_of_table(table: Dataset, task: Task, pictures: Pictures) -> RowMeans:
    """Of prepared rows, all of them: give it a few."""
    if not len(table):
        return RowMeans()
    found: dict[str, list[Any]] = table[:]
    sides = [side for name in ("query", "document") for side in found[name]]
    sizes = [(side["height"], side["width"]) for side in sides if side["image"] is not None]
    visual = sum(pictures.visual_tokens(size, task.visual_tokens) for size in sizes)
    return RowMeans(
        given=sum(map(len, found["negatives"])) / len(table),
        text_tokens=(sum(found["cost"]) - visual) / len(table),
        visual_tokens=visual / len(table),
    )


def means_of_records(reader: Reader, task: Task) -> RowMeans:
    """Of the first rows as they lie in the source."""
    if "negatives" not in task.read_fields:
        return RowMeans()
    first = [record for _, record in islice(reader, SAMPLE) if not isinstance(record, RowError)]
    given = [record.get(task.fields["negatives"]) for record in first]
    lengths = [len(texts) for texts in given if isinstance(texts, list)]
    return RowMeans(given=sum(lengths) / max(len(first), 1))


def rows_with_label(reader: Reader, name: str, task: Task, book: LabelBook) -> int:
    """How many rows the sampler draws for a task of partially labelled texts."""
    rows, column = 0, task.fields["labels"]
    for where, record in reader:
        if isinstance(record, RowError):
            continue
        try:
            labels = labels_of(record.get(column), column, where, task.label)
        except RowError:  # said when the row is prepared
            continue
        rows += name in book.tasks_of(name, labels)
    return rows
