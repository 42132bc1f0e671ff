"""Embeds whole splits and measures them, outside the trainer: per task, per group, per query."""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import torch
from numpy.typing import NDArray

from polyqwen.data.batch import Batch
from polyqwen.metrics.bootstrap import Interval, paired_bootstrap, paired_bootstrap_spearman
from polyqwen.metrics.retrieval import expected_reciprocal_rank, retrieval_ranks
from polyqwen.metrics.similarity import pair_cosines
from polyqwen.metrics.task_metrics import TaskMetrics
from polyqwen.metrics.types import PairEmbeddings
from polyqwen.module import EmbeddingModule, select


class EmbeddedView(NamedTuple):
    """One task's split, embedded, in the order of its rows.

    Attributes:
        pairs: the embeddings.
        rows: (N,) row numbers in the split, rising.
    """

    pairs: PairEmbeddings
    rows: NDArray[Any]


@torch.inference_mode()
def embed_view(model: EmbeddingModule, batches: Iterable[Batch]) -> EmbeddedView:
    """Embeds all batches of one view (a task, perhaps under an ablation)."""
    model.eval()
    parts: list[PairEmbeddings] = []
    rows = []
    for batch in batches:
        batch = model.transfer_batch_to_device(batch, model.device, 0)
        ((_, own),) = batch.tasks.items()
        pairs = select(model(batch), own)
        parts.append(PairEmbeddings(*(_cpu(getattr(pairs, f)) for f in PairEmbeddings._fields)))
        rows.append(own.row.cpu())
    order = torch.cat(rows).argsort()
    joined = [None if column[0] is None else torch.cat(column)[order] for column in zip(*parts)]
    return EmbeddedView(PairEmbeddings(*joined), torch.cat(rows)[order].numpy())


def _cpu(value: torch.Tensor | None) -> torch.Tensor | None:
    return None if value is None else value.cpu()


def measure(metrics: TaskMetrics, pairs: PairEmbeddings) -> dict[str, float]:
    """All metrics of embedded pairs."""
    metrics.reset()
    metrics.update(pairs)
    return metrics.compute()


def chance(metrics: TaskMetrics, pairs: PairEmbeddings) -> dict[str, float]:
    """Retrieval metrics of a random order of the same pool."""
    metrics.reset()
    metrics.update(pairs)
    return metrics.chance()


def choose(pairs: PairEmbeddings, rows: Sequence[int]) -> PairEmbeddings:
    """Some of the pairs; their documents alone are the pool."""
    index = torch.as_tensor(rows)
    return PairEmbeddings(*(None if value is None else value[index] for value in pairs))


def advantage(
    metrics: TaskMetrics, trained: PairEmbeddings, other: PairEmbeddings
) -> tuple[str, Interval]:
    """By how much `trained` beats `other` on the same rows, with a paired bootstrap 95 % interval.

    Returns:
        The metric compared (Spearman for scored pairs, else MRR) and its interval.
    """
    if trained.score is not None:
        cosines = [pair_cosines(pairs).numpy() for pairs in (trained, other)]
        return "spearman", paired_bootstrap_spearman(*cosines, trained.score.numpy())
    ranks = [
        expected_reciprocal_rank(retrieval_ranks(pairs, metrics.min_score)).numpy()
        for pairs in (trained, other)
    ]
    return "mrr", paired_bootstrap(*ranks)
