"""What a run is about to train on, in one table."""

from collections import Counter
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from datasets import Dataset
from rich.table import Table

from polyqwen.data.subset import unique_labels


class TaskStatistics(NamedTuple):
    """Size and shape of one task's training split."""

    rows: int
    share: float  # of all training rows
    distinct_documents: int
    tokens: float  # mean per row, both sides, pictures included
    tokens_p95: float
    pictures: float  # share of rows whose query or document has one
    scores: tuple[float, float, float] | None  # quartiles
    classes: dict[str, int]  # rows of each class of the task's label, most first


def task_statistics(
    tables: dict[str, Dataset], labels: Mapping[str, str | None] = {}
) -> dict[str, TaskStatistics]:
    """Statistics of every task's table; ``labels`` names what label tasks learn."""
    total = sum(len(table) for table in tables.values())
    return {task: _one(table, total, labels.get(task)) for task, table in tables.items()}


def _one(table: Dataset, total: int, label: str | None) -> TaskStatistics:
    data = table.data
    cost = np.asarray(data.column("cost"))
    query, document = (
        data.column("query").combine_chunks(),
        data.column("document").combine_chunks(),
    )
    keys = np.asarray(document.field("key"))
    pictures = np.maximum(np.asarray(query.field("height")), np.asarray(document.field("height")))
    score = data.column("score")
    scores = None if score.null_count else np.quantile(np.asarray(score), [0.25, 0.5, 0.75])
    return TaskStatistics(
        rows=len(table),
        share=len(table) / total,
        distinct_documents=len(np.unique(keys)),
        tokens=float(cost.mean()),
        tokens_p95=float(np.quantile(cost, 0.95)),
        pictures=float((pictures > 0).mean()),
        scores=None if scores is None else (float(scores[0]), float(scores[1]), float(scores[2])),
        classes={} if label is None else _classes(table, label),
    )


def _classes(table: Dataset, label: str) -> dict[str, int]:
    kinds, kind_of = unique_labels(table)
    counts: Counter[str] = Counter()
    for labels, rows in zip(kinds, np.bincount(kind_of, minlength=len(kinds)), strict=True):
        if label in labels:
            counts[labels[label]] += int(rows)
    return dict(counts.most_common())


def statistics_table(statistics: dict[str, TaskStatistics]) -> Table:
    """The statistics as a table for the terminal."""
    table = Table(title="training data", title_justify="left")
    columns = ["task", "rows", "share", "documents", "tokens", "p95", "pictures", "scores"]
    labelled = any(s.classes for s in statistics.values())
    for column in [*columns, *(["classes"] if labelled else [])]:
        table.add_column(column, justify="left" if column in ("task", "classes") else "right")
    for task, s in statistics.items():
        table.add_row(
            task,
            f"{s.rows:,}",
            f"{s.share:.0%}",
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
