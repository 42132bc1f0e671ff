"""Rows of all tasks of one split, read from the prepared tables."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from datasets import Dataset as Table
from numpy.typing import NDArray
from torch.utils.data import Dataset

from polyqwen.data.sampling.permutation import easy_first
from polyqwen.data.tables.cache import kept_array

Ablation = Literal["none", "shuffled_pictures", "grey_pictures", "no_question", "wrong_prefix"]
ABLATIONS: tuple[Ablation, ...] = get_args(Ablation)
OF_PICTURES: tuple[Ablation, ...] = ("shuffled_pictures", "grey_pictures", "no_question")


class Side(NamedTuple):
    """One content, tokenised; its picture not yet opened."""

    ids: tuple[int, ...]
    image: str | None
    size: tuple[int, int]  # height and width of the picture's file
    key: int
    grey: bool = False  # show an empty grey picture of the same size instead
    prefix: str | None = None  # task whose prefix it gets instead of its own


class Row(NamedTuple):
    """One prepared example."""

    task: str
    row: int
    query: Side
    document: Side
    negatives: tuple[Side, ...]
    score: float | None
    labels: Mapping[str, str] = {}
    teacher_query: Sequence[float] | None = None
    teacher_document: Sequence[float] | None = None


class MultiTaskDataset(Dataset[Row]):
    """Addressed by (task, row).

    Args:
        tables: task → its prepared table.
        ablation: what the queries are deprived of, for evaluation: ``shuffled_pictures`` gives each
            the picture of another row, ``grey_pictures`` an empty one, ``no_question`` no text.
            ``wrong_prefix`` gives queries and documents alike the prefix of another task.
        other_task: the task whose prefix that is.
    """

    def __init__(
        self,
        tables: dict[str, Table],
        ablation: Ablation = "none",
        other_task: str | None = None,
    ) -> None:
        if ablation not in ABLATIONS:
            raise ValueError(f"ablation must be one of {', '.join(ABLATIONS)}, got {ablation!r}")
        if ablation == "wrong_prefix" and other_task is None:
            raise ValueError("ablation wrong_prefix needs a second task to take a prefix from")
        self.tables = tables
        self.ablation = ablation
        self.prefix = other_task if ablation == "wrong_prefix" else None
        self._chunks: dict[str, tuple[Any, NDArray[np.int64]]] = {}

    def __len__(self) -> int:
        return sum(len(table) for table in self.tables.values())

    def __getitem__(self, address: tuple[str, int]) -> Row:
        task, row = address
        record = self.tables[task][row]
        query = self._ablated(_side(record["query"]), task, row)
        return Row(
            task=task,
            row=row,
            query=query._replace(prefix=self.prefix),
            document=_side(record["document"])._replace(prefix=self.prefix),
            negatives=tuple(_side(negative) for negative in record["negatives"]),
            score=record["score"],
            labels=json.loads(record["labels"]),
            teacher_query=record["teacher_query"],
            teacher_document=record["teacher_document"],
        )

    def __getitems__(self, addresses: Sequence[tuple[str, int]]) -> list[Row]:
        return [self[address] for address in addresses]

    def _ablated(self, query: Side, task: str, row: int) -> Side:
        if self.ablation == "no_question":
            return query._replace(ids=())
        if query.image is None:
            return query
        if self.ablation == "grey_pictures":
            return query._replace(grey=True)
        if self.ablation == "shuffled_pictures":
            rows = len(self.tables[task])
            other = self.tables[task][(row + rows // 2) % rows]["query"]
            return query._replace(image=other["image"], size=(other["height"], other["width"]))
        return query

    def costs(self, task: str) -> NDArray[np.int64]:
        """Tokens of each row, a measure of its work: (rows,)."""
        return np.asarray(self.tables[task].data.column("cost"), dtype=np.int64)

    def easy_first(self, task: str, seed: int) -> NDArray[np.int64]:
        """The rows from easy to hard, sorted once and read from the disk since: (rows,)."""
        name = f"easy-{task}-{seed}"
        return kept_array(
            self.tables[task], name, lambda: easy_first(self.difficulty(task), seed, task)
        )

    def difficulty(self, task: str) -> NDArray[np.float64]:
        """How hard each row is: its column, or its length where rows have none; (rows,)."""
        column = self.tables[task].data.column("difficulty")
        if column.null_count:
            return self.costs(task).astype(np.float64)
        return np.asarray(column, dtype=np.float64)

    def costs_at(self, task: str, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Tokens of some rows, read where they lie on the disk: nothing grows with the table."""
        column, starts = self._cost_chunks(task)
        chunks = np.searchsorted(starts, rows, side="right") - 1
        places = zip(chunks.tolist(), (rows - starts[chunks]).tolist(), strict=True)
        return np.array([column.chunk(i)[j].as_py() for i, j in places], dtype=np.int64)

    def _cost_chunks(self, task: str) -> tuple[Any, NDArray[np.int64]]:
        """The column of costs, and the first row of each of its chunks."""
        if task not in self._chunks:
            column = self.tables[task].data.column("cost")
            sizes = [len(chunk) for chunk in column.chunks]
            self._chunks[task] = column, np.concatenate([[0], np.cumsum(sizes)[:-1]])
        return self._chunks[task]

    def texts(self, task: str, rows: Sequence[int]) -> list[dict[str, Any]]:
        """What a person reads of rows: query and document texts, pictures and info columns."""
        records = self.tables[task][list(rows)]
        return [
            {
                "query_text": query["text"],
                "query_image": query["image"],
                "document_text": document["text"],
                "document_image": document["image"],
                **json.loads(info),
            }
            for query, document, info in zip(
                records["query"], records["document"], records["info"], strict=True
            )
        ]


def _side(record: dict[str, Any]) -> Side:
    return Side(
        ids=tuple(record["ids"]),
        image=record["image"],
        size=(record["height"], record["width"]),
        key=record["key"],
    )
