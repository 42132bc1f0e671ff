"""From a batch's embeddings to the pairs of its tasks."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from polyqwen.data.batch import TaskBatch
from polyqwen.losses.types import Pairs


def by_task(
    tasks: Mapping[str, TaskBatch], order: Sequence[str]
) -> tuple[Tensor, list[int], dict[str, TaskBatch]]:
    """Gives every task its own copy of the contents it uses.

    Args:
        tasks: the batch's pairs.
        order: all tasks of the run.

    Returns:
        The contents to take, one task's after the other's (M,); how many are each task's, in
        ``order``; the pairs with their indices moved accordingly.
    """
    rows: list[Tensor] = []
    sizes, moved = [], {}
    for task in order:
        if task not in tasks:
            sizes.append(0)
            continue
        fields = {name: getattr(tasks[task], name) for name in ("query", "document", "negative")}
        given = {name: index for name, index in fields.items() if index is not None}
        used, place = torch.cat(list(given.values())).unique(return_inverse=True)
        places = (place + sum(sizes)).split([len(index) for index in given.values()])
        moved[task] = tasks[task]._replace(**dict(zip(given, places, strict=True)))
        rows.append(used)
        sizes.append(len(used))
    return torch.cat(rows) if rows else torch.zeros(0, dtype=torch.int64), sizes, moved


def select(embeddings: Tensor, rows: TaskBatch) -> Pairs:
    """The pairs of one task out of the batch's embeddings."""
    return Pairs(
        query=embeddings[rows.query],
        document=embeddings[rows.document],
        query_key=rows.query_key,
        document_key=rows.document_key,
        score=rows.score,
        negative=None if rows.negative is None else embeddings[rows.negative],
        negative_key=rows.negative_key,
        negative_row=rows.negative_row,
        label=rows.label,
        teacher_query=rows.teacher_query,
        teacher_document=rows.teacher_document,
    )


@torch.no_grad()
def similarity_gap(pairs: Pairs) -> Tensor:
    """Mean cosine of a batch's pairs minus that of all other combinations: a scalar."""
    cosines = pairs.query @ pairs.document.T  # (B, B)
    rows = len(cosines)
    matching = cosines.diagonal().mean()
    others = (cosines.sum() - cosines.diagonal().sum()) / max(rows * (rows - 1), 1)
    return matching - others
