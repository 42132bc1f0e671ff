"""What a run is about to train on, in one table."""

from typing import NamedTuple

import numpy as np
from datasets import Dataset
from rich.table import Table


class TaskStatistics(NamedTuple):
    """Size and shape of one task's training split."""

    rows: int
    share: float  # of all training rows
    distinct_documents: int
    tokens: float  # mean per row, both sides, pictures included
    tokens_p95: float
    pictures: float  # share of rows whose query or document has one
    scores: tuple[float, float, float] | None  # quartiles


def task_statistics(tables: dict[str, Dataset]) -> dict[str, TaskStatistics]:
    """Statistics of every task's table."""
    total = sum(len(table) for table in tables.values())
    return {task: _one(table, total) for task, table in tables.items()}


def _one(table: Dataset, total: int) -> TaskStatistics:
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
    )


def statistics_table(statistics: dict[str, TaskStatistics]) -> Table:
    """The statistics as a table for the terminal."""
    table = Table(title="training data", title_justify="left")
    for column in ("task", "rows", "share", "documents", "tokens", "p95", "pictures", "scores"):
        table.add_column(column, justify="left" if column == "task" else "right")
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
        )
    return table
