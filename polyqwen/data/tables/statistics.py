"""What the rows of a run look like, in one table; what a step takes of them is in the plan."""

from collections import Counter
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import pyarrow.compute as pc
from datasets import Dataset
from numpy.typing import NDArray
from rich import box
from rich.table import Table

from polyqwen.data.tables.cache import kept_json
from polyqwen.data.tables.labels import label_counts

SCORE_STEPS = 1000  # scores are counted to this part of one
QUARTILES = (0.25, 0.5, 0.75)


class TaskStatistics(NamedTuple):
    """Size and shape of one task's training split."""

    rows: int
    distinct_documents: int  # an estimate above 65,536, see `DistinctCount`
    tokens: float  # mean per row, both sides, pictures included
    tokens_p95: float
    pictures: float  # share of rows whose query or document has one
    scores: tuple[float, float, float] | None  # quartiles
    classes: dict[str, int]  # rows of each class of the task's label, most first


def task_statistics(
    tables: dict[str, Dataset], labels: Mapping[str, str | None] = {}
) -> dict[str, TaskStatistics]:
    """Statistics of every task's table; ``labels`` names what label tasks learn."""
    return {task: _one(table, labels.get(task)) for task, table in tables.items()}


def _one(table: Dataset, label: str | None) -> TaskStatistics:
    measured = kept_json(table, "statistics", lambda: _measured(table))
    scores = measured.pop("scores")
    return TaskStatistics(
        rows=len(table),
        scores=None if scores is None else (scores[0], scores[1], scores[2]),
        classes={} if label is None else _classes(table, label),
        **measured,
    )


def _measured(table: Dataset) -> dict[str, Any]:
    """What takes a look at every row: batch by batch, in memory that does not grow with them."""
    pictured, documents = 0, DistinctCount()
    costs, scores = np.zeros(0, np.int64), np.zeros(SCORE_STEPS + 1, np.int64)  # histograms
    unscored = 0
    for batch in table.data.table.select(["query", "document", "score", "cost"]).to_batches():
        query, document, score, cost = batch.columns
        documents.add(np.asarray(pc.struct_field(document, "key")))
        heights = [np.asarray(pc.struct_field(side, "height")) for side in (query, document)]
        pictured += int((np.maximum(*heights) > 0).sum())
        costs = _added(costs, np.bincount(np.asarray(cost)))
        unscored += score.null_count
        given = np.asarray(score.drop_null(), dtype=np.float64)
        scores = _added(scores, np.bincount(np.rint(given * SCORE_STEPS).astype(np.int64)))
    return {
        "distinct_documents": documents.estimate(),
        "tokens": float(np.arange(len(costs)) @ costs / len(table)),
        "tokens_p95": _quantile(costs, 0.95),
        "pictures": pictured / len(table),
        "scores": None if unscored else [_quantile(scores, q) / SCORE_STEPS for q in QUARTILES],
    }


def _added(first: NDArray[np.int64], second: NDArray[np.int64]) -> NDArray[np.int64]:
    """The sum of two histograms that may differ in length."""
    total = np.zeros(max(len(first), len(second)), np.int64)
    total[: len(first)] += first
    total[: len(second)] += second
    return total


def _quantile(histogram: NDArray[np.int64], q: float) -> float:
    """Interpolated between neighbours, as `numpy.quantile` does with the values themselves."""
    ends = np.cumsum(histogram)
    place = q * (ends[-1] - 1)
    low, high = np.searchsorted(ends, [np.floor(place), np.ceil(place)], side="right").tolist()
    return low + (high - low) * (place - float(np.floor(place)))


class DistinctCount:
    """Estimates how many different 64-bit hashes a stream holds, from its smallest ones.

    With the k smallest different hashes kept, scaled to (0, 1]: (k - 1) / the k-th of them, with a
    relative error of about 1 / sqrt(k); exact below k (Bar-Yossef et al. 2002, "Counting distinct
    elements in a data stream").

    Args:
        kept: k, >= 2.
    """

    def __init__(self, kept: int = 1 << 16) -> None:
        self._kept, self._smallest = kept, np.zeros(0, np.uint64)

    def add(self, hashes: NDArray[np.int64]) -> None:
        """Adds (n,) hashes."""
        smallest = np.concatenate([self._smallest, hashes.view(np.uint64)])
        self._smallest = np.unique(smallest)[: self._kept]

    def estimate(self) -> int:
        """How many different ones were added."""
        if len(self._smallest) < self._kept:
            return len(self._smallest)
        return round((self._kept - 1) / (float(self._smallest[-1]) / 2.0**64))


def _classes(table: Dataset, label: str) -> dict[str, int]:
    counts: Counter[str] = Counter()
    for labels, rows in label_counts(table):
        if label in labels:
            counts[labels[label]] += rows
    return dict(counts.most_common())


def statistics_table(statistics: dict[str, TaskStatistics]) -> Table:
    """The statistics as a table for the terminal."""
    table = Table(title="[bold]training data[/bold]", title_justify="left", box=box.SIMPLE_HEAD)
    table.title_style, table.pad_edge, table.show_edge = "", False, False
    columns = ["task", "rows", "documents", "tokens", "p95", "pictures", "scores"]
    labelled = any(s.classes for s in statistics.values())
    for column in [*columns, *(["classes"] if labelled else [])]:
        table.add_column(column, justify="left" if column in ("task", "classes") else "right")
    for task, s in statistics.items():
        table.add_row(
            task,
            f"{s.rows:,}",
            f"{s.distinct_documents:,}",
            f"{s.tokens:.1f}",
            f"{s.tokens_p95:.0f}",
            f"{s.pictures:.0%}",
            "–" if s.scores is None else "/".join(f"{q:.2f}" for q in s.scores),
            *([_shown(s.classes)] if labelled else []),
        )
    return table


def _shown(classes: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {rows:,}" for name, rows in classes.items()) or "–"
