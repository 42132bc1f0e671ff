"""Looks up what a person would see of queries and of what the model finds for them."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from numpy.typing import NDArray
from torch import Tensor

from polyqwen.data.datamodule import CurriculumDataModule
from polyqwen.data.tables.dataset import MultiTaskDataset
from polyqwen.metrics.choice import right_documents
from polyqwen.metrics.types import PairEmbeddings, distinct
from polyqwen.report.gallery import GalleryRow, Result

RESULTS = 4


def gallery_rows(
    data: CurriculumDataModule,
    task: str,
    split: str,
    pairs: PairEmbeddings,
    queries: Tensor,
    relevant_from: float | None = None,
) -> list[GalleryRow]:
    """Queries of a split with their best documents, best first.

    Args:
        data: where texts and pictures are.
        task: the task.
        split: its split.
        pairs: rows of the split, embedded, in any order.
        queries: (S,) places in ``pairs`` of the queries to show.
        relevant_from: lowest score of a matching pair; None takes every row.
    """
    pool, _ = distinct(pairs.document_key)  # rows that stand for the pool's documents
    cosines = pairs.query[queries] @ pairs.document[pool].T  # (S, P)
    right = right_documents(pairs, queries, pool, relevant_from)
    best = cosines.topk(min(RESULTS, len(pool)))
    shown = torch.cat([queries, pool[best.indices].flatten()])
    entries = dict(zip(shown.tolist(), look(data, task, split, pairs, shown), strict=True))
    rows: list[GalleryRow] = []
    for i, query in enumerate(queries.tolist()):
        own = cosines[i][right[i]].max()
        rank = 1 + int((cosines[i] > own).sum())
        found = [entries[row] for row in pool[best.indices[i]].tolist()]
        marks = right[i][best.indices[i]].tolist()
        rows.append(
            GalleryRow(
                query_text=entries[query]["query_text"],
                query_image=entries[query]["query_picture"],
                answer_text=entries[query]["document_text"],
                answer_note=f"rank {rank} of {len(pool)}, cos {own:.3f}",
                results=[
                    Result(entry["document_text"], entry["document_picture"], cosine, mark)
                    for entry, cosine, mark in zip(
                        found, best.values[i].tolist(), marks, strict=True
                    )
                ],
            )
        )
    return rows


def look(
    data: CurriculumDataModule, task: str, split: str, pairs: PairEmbeddings, places: Tensor
) -> list[dict[str, Any]]:
    """Texts and opened pictures of some places in ``pairs``."""
    table = data.splits.table(task, split)
    rows = _rows_by_key(table, pairs.query_key[places], pairs.document_key[places])
    entries = MultiTaskDataset({task: table}).texts(task, rows)
    for entry in entries:
        for side in ("query", "document"):
            name = entry[f"{side}_image"]
            entry[f"{side}_picture"] = data.pictures.open(name) if name else None
    return entries


def _rows_by_key(table: Dataset, query: Tensor, document: Tensor) -> Sequence[int]:
    """Rows of the split that hold these contents; a key names a text and a picture."""
    keys = np.stack([_keys(table, "query"), _keys(table, "document")])  # (2, rows)
    wanted = zip(query.tolist(), document.tolist(), strict=True)
    return [int((keys == np.array([pair]).T).all(axis=0).argmax()) for pair in wanted]


def _keys(table: Dataset, side: str) -> NDArray[np.int64]:
    column = table.data.column(side).combine_chunks()
    return np.asarray(column.field("key"), dtype=np.int64)
