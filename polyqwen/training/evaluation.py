"""Embeds whole splits and measures them, outside the trainer: per task, per group, per query."""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils._pytree import tree_map_only

from polyqwen.data.batch import Batch
from polyqwen.metrics.bootstrap import Interval, paired_bootstrap, paired_bootstrap_spearman
from polyqwen.metrics.retrieval import expected_reciprocal_rank, retrieval_ranks
from polyqwen.metrics.similarity import pair_cosines
from polyqwen.metrics.split import SplitMetrics
from polyqwen.metrics.types import PairEmbeddings
from polyqwen.training.module import EmbeddingModule


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
        ((task, own),) = batch.tasks.items()
        parts.append(tree_map_only(Tensor, Tensor.cpu, model.evaluated_pairs(batch, task)))
        rows.append(own.row.cpu())
    order = torch.cat(rows).argsort()
    pairs = choose(_joined(parts), order)
    return EmbeddedView(pairs, torch.cat(rows)[order].numpy())


def _joined(parts: Sequence[PairEmbeddings]) -> PairEmbeddings:
    """The rows of all parts after one another."""
    columns = zip(*parts, strict=True)
    return PairEmbeddings(*(None if c[0] is None else torch.cat(c) for c in columns))  # type: ignore[arg-type]


def measure(metrics: SplitMetrics, pairs: PairEmbeddings) -> dict[str, float]:
    """All metrics of embedded pairs."""
    metrics.reset()
    metrics.update(pairs)
    return metrics.compute()


def choose(pairs: PairEmbeddings, rows: Sequence[int] | Tensor) -> PairEmbeddings:
    """Some of the pairs; their documents alone are the pool."""
    index = torch.as_tensor(rows)
    chosen: PairEmbeddings = tree_map_only(Tensor, lambda value: value[index], pairs)
    return chosen


def advantage(
    metrics: SplitMetrics, trained: PairEmbeddings, other: PairEmbeddings
) -> tuple[str, Interval]:
    """By how much `trained` beats `other` on the same rows, with a paired bootstrap 95 % interval.

    Returns:
        The metric compared (accuracy for labels, Spearman for scored pairs, else MRR) and its
        interval.
    """
    if trained.label is not None:
        assert trained.logits is not None and other.logits is not None
        hits = [(p.argmax(dim=1) == trained.label).double() for p in (trained.logits, other.logits)]
        return "accuracy", paired_bootstrap(hits[0].numpy(), hits[1].numpy())
    if trained.score is not None:
        ours, theirs = (pair_cosines(pairs).numpy() for pairs in (trained, other))
        return "spearman", paired_bootstrap_spearman(ours, theirs, trained.score.numpy())
    ours, theirs = (
        expected_reciprocal_rank(retrieval_ranks(pairs, metrics.min_score)).numpy()
        for pairs in (trained, other)
    )
    return "mrr", paired_bootstrap(ours, theirs)
