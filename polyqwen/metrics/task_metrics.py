"""All metrics of one task over a whole split, collected batch by batch and rank by rank."""

from collections.abc import Sequence
from typing import Any

import torch

from polyqwen.metrics.retrieval import RetrievalMetrics
from polyqwen.metrics.similarity import pair_cosines, similarity_gap, spearman
from polyqwen.metrics.space import MAX_ROWS, space_health
from polyqwen.metrics.split import SplitMetrics
from polyqwen.metrics.types import PairEmbeddings, truncated


class TaskMetrics(SplitMetrics):
    """Retrieval, similarity and embedding-space metrics of one task.

    ``compute`` returns plain floats: ``recall@k``, ``mrr``, ``ndcg@10``, ``pool``, ``queries``,
    ``spearman`` (scored tasks only), ``gap``, ``gap_effect`` and the monitors of ``SPACE_KEYS``.
    What is undefined for want of rows is NaN. With ``dims``, retrieval and Spearman of shortened
    embeddings as well: ``recall@1@64``.

    Args:
        scored: the task's pairs carry a score in [0, 1].
        ks: cut-offs of recall, each ≥ 1.
        min_score: lowest score of a matching pair, in [0, 1]; only for scored tasks, where None
            takes every row as matching.
        block: rows and documents per block of cosines, ≥ 1.
        max_rows: distinct contents per side for the monitors of the space, ≥ 2.
        dims: further widths, each from 1 to the embeddings' size.
        kwargs: passed on to ``torchmetrics.Metric``.

    Raises:
        ValueError: a value is out of its range, or ``min_score`` without scores.
    """

    paired = True

    def __init__(
        self,
        scored: bool,
        ks: Sequence[int] = (1, 5, 10),
        min_score: float | None = None,
        block: int = 1024,
        max_rows: int = MAX_ROWS,
        dims: Sequence[int] = (),
        **kwargs: Any,
    ) -> None:
        if min_score is not None and not scored:
            raise ValueError(f"min_score={min_score} needs scored=True; leave it None otherwise")
        if max_rows < 2:
            raise ValueError(f"max_rows={max_rows} must be at least 2; 2048 is the default")
        if any(dim < 1 for dim in dims):
            raise ValueError(f"dims={list(dims)} must be widths of at least 1")
        retrieval = RetrievalMetrics(ks, min_score, block)
        self.scored = scored  # decides which columns the base keeps
        super().__init__(**kwargs)
        self.min_score, self.max_rows, self.retrieval = min_score, max_rows, retrieval
        self.dims = tuple(dims)

    @property
    def main(self) -> str:  # type: ignore[override]  # a constant of the class elsewhere
        """Spearman for scored pairs, recall@1 for others."""
        return "spearman" if self.scored else "recall@1"

    def columns(self) -> dict[str, torch.dtype]:
        """Embeddings and keys of both sides, and scores where there are some."""
        embeddings = {"query": torch.float32, "document": torch.float32}
        keys = {"query_key": torch.int64, "document_key": torch.int64}
        return {**embeddings, **keys, **({"score": torch.float32} if self.scored else {})}

    def update(self, pairs: PairEmbeddings) -> None:
        """Adds rows, possibly none; tensors may live on any device and in any float type."""
        if self.scored and pairs.score is None:
            raise ValueError("scored=True and these pairs have no score; use scored=False")
        super().update(pairs)

    def values(self, pairs: PairEmbeddings) -> dict[str, float]:
        """All metrics by name."""
        values = self._found(pairs)
        values |= {
            f"{name}@{dim}": value
            for dim in (self.dims if len(pairs.query) else ())
            for name, value in self._found(truncated(pairs, dim)).items()
            if name not in ("pool", "queries")
        }
        values |= similarity_gap(pairs, self.min_score)
        return values | space_health(pairs, self.min_score, self.max_rows)

    def _found(self, pairs: PairEmbeddings) -> dict[str, float]:
        """Retrieval and, where there are scores, their order."""
        values = self.retrieval(pairs)
        if pairs.score is not None:
            values["spearman"] = spearman(pair_cosines(pairs).numpy(), pairs.score.numpy())
        return values

    def chance_of(self, pairs: PairEmbeddings) -> dict[str, float]:
        """Retrieval metrics expected of a random order."""
        return self.retrieval.chance(pairs)
