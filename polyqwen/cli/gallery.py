"""Picks queries and looks up what a person would see of them and of their results."""

from typing import Any

import torch

from polyqwen.cli.build import Parts
from polyqwen.data.dataset import MultiTaskDataset
from polyqwen.evaluation import EmbeddedView
from polyqwen.metrics.types import distinct, matching_rows
from polyqwen.reporting.gallery import GalleryRow, Result

RESULTS = 4


def gallery_rows(
    parts: Parts, task: str, split: str, view: EmbeddedView, count: int
) -> list[GalleryRow]:
    """Queries spread over the split with their best documents, best first.

    Args:
        parts: data and model of the run.
        task: the task.
        split: its split.
        view: the split embedded.
        count: queries, > 0.
    """
    pairs = view.pairs
    first, _ = distinct(pairs.document_key)  # rows that stand for the pool's documents
    queries = matching_rows(pairs, parts.model.metric(task).min_score).nonzero().flatten()
    chosen = queries[torch.linspace(0, len(queries) - 1, min(count, len(queries))).long()]
    cosines = pairs.query[chosen] @ pairs.document[first].T  # (count, P)
    best = cosines.topk(min(RESULTS, len(first)))
    dataset = MultiTaskDataset({task: parts.data.table(task, split)})

    def look(row: int) -> dict[str, Any]:
        entry = dataset.texts(task, [int(view.rows[row])])[0]
        for side in ("query", "document"):
            name = entry[f"{side}_image"]
            entry[f"{side}_picture"] = parts.data.pictures.open(name) if name else None
        return entry

    rows: list[GalleryRow] = []
    for i, query in enumerate(chosen.tolist()):
        shown = look(query)
        results = []
        for place, cosine in zip(best.indices[i].tolist(), best.values[i].tolist(), strict=True):
            document = int(first[place])
            found = look(document)
            right = bool(pairs.document_key[document] == pairs.document_key[query])
            results.append(Result(found["document_text"], found["document_picture"], cosine, right))
        rows.append(
            GalleryRow(
                query_text=shown["query_text"],
                query_image=shown["query_picture"],
                answer_text=shown["document_text"],
                results=results,
            )
        )
    return rows
