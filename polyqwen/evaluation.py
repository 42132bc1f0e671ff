"""Embeds whole splits and measures them, outside the trainer: per task, per group, per query."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import torch
from numpy.typing import NDArray
from torch import Tensor

from polyqwen.data.batch import Batch
from polyqwen.losses.types import Pairs
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
        parts.append(_each(select(model(batch), own), Tensor.cpu))
        rows.append(own.row.cpu())
    order = torch.cat(rows).argsort()
    pairs = _each(_joined(parts), lambda value: value[order])
    return EmbeddedView(pairs, torch.cat(rows)[order].numpy())


def _each(pairs: Pairs | PairEmbeddings, change: Callable[[Tensor], Tensor]) -> PairEmbeddings:
    """The same change to every field that is given."""
    return PairEmbeddings(
        query=change(pairs.query),
        document=change(pairs.document),
        query_key=change(pairs.query_key),
        document_key=change(pairs.document_key),
        score=None if pairs.score is None else change(pairs.score),
    )


def _joined(parts: Sequence[PairEmbeddings]) -> PairEmbeddings:
    """The rows of all parts after one another."""
    scores = [part.score for part in parts if part.score is not None]
    return PairEmbeddings(
        query=torch.cat([part.query for part in parts]),
        document=torch.cat([part.document for part in parts]),
        query_key=torch.cat([part.query_key for part in parts]),
        document_key=torch.cat([part.document_key for part in parts]),
        score=torch.cat(scores) if len(scores) == len(parts) else None,
    )


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
    return _each(pairs, lambda value: value[index])


def advantage(
    metrics: TaskMetrics, trained: PairEmbeddings, other: PairEmbeddings
) -> tuple[str, Interval]:
    """By how much `trained` beats `other` on the same rows, with a paired bootstrap 95 % interval.

    Returns:
        The metric compared (Spearman for scored pairs, else MRR) and its interval.
    """
    if trained.score is not None:
        ours, theirs = (pair_cosines(pairs).numpy() for pairs in (trained, other))
        return "spearman", paired_bootstrap_spearman(ours, theirs, trained.score.numpy())
    ours, theirs = (
        expected_reciprocal_rank(retrieval_ranks(pairs, metrics.min_score)).numpy()
        for pairs in (trained, other)
    )
    return "mrr", paired_bootstrap(ours, theirs)
