"""All metrics of one task over a whole split, collected batch by batch and rank by rank."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from polyqwen.metrics.retrieval import RetrievalMetrics
from polyqwen.metrics.similarity import pair_cosines, similarity_gap, spearman
from polyqwen.metrics.space import MAX_ROWS, space_health
from polyqwen.metrics.types import PairEmbeddings


class TaskMetrics(Metric):
    """Retrieval, similarity and embedding-space metrics of one task.

    ``compute`` returns plain floats: ``recall@k``, ``mrr``, ``ndcg@10``, ``pool``, ``queries``,
    ``spearman`` (scored tasks only), ``gap``, ``gap_effect`` and the monitors of ``SPACE_KEYS``.
    What is undefined for want of rows is NaN.

    Args:
        scored: the task's pairs carry a score in [0, 1].
        ks: cut-offs of recall, each ≥ 1.
        min_score: lowest score of a matching pair, in [0, 1]; only for scored tasks, where None
            takes every row as matching.
        block: rows and documents per block of cosines, ≥ 1.
        max_rows: distinct contents per side for the monitors of the space, ≥ 2.
        kwargs: passed on to ``torchmetrics.Metric``.

    Raises:
        ValueError: a value is out of its range, or ``min_score`` without scores.
    """

    full_state_update = False
    query: list[Tensor]
    document: list[Tensor]
    query_key: list[Tensor]
    document_key: list[Tensor]
    score: list[Tensor]

    def __init__(
        self,
        scored: bool,
        ks: Sequence[int] = (1, 5, 10),
        min_score: float | None = None,
        block: int = 1024,
        max_rows: int = MAX_ROWS,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if min_score is not None and not scored:
            raise ValueError(f"min_score={min_score} needs scored=True; leave it None otherwise")
        if max_rows < 2:
            raise ValueError(f"max_rows={max_rows} must be at least 2; 2048 is the default")
        self.scored, self.min_score, self.max_rows = scored, min_score, max_rows
        self.retrieval = RetrievalMetrics(ks, min_score, block)
        self.computed_from: PairEmbeddings | None = None  # all ranks' rows of the last compute
        for name in self._state_types():
            self.add_state(name, default=[], dist_reduce_fx="cat")

    def _state_types(self) -> dict[str, torch.dtype]:
        embeddings = {"query": torch.float32, "document": torch.float32}
        keys = {"query_key": torch.int64, "document_key": torch.int64}
        return {**embeddings, **keys, **({"score": torch.float32} if self.scored else {})}

    def update(self, pairs: PairEmbeddings) -> None:
        """Adds rows, possibly none; tensors may live on any device and in any float type."""
        if self.scored and pairs.score is None:
            raise ValueError("scored=True and these pairs have no score; use scored=False")
        for name, dtype in self._state_types().items():
            # Flat, so that a rank that saw no rows can take part in the gather without knowing D.
            value = getattr(pairs, name).detach().to(self.device, dtype).flatten()
            getattr(self, name).append(value)

    def sync(self, *args: Any, **kwargs: Any) -> None:
        """Gathers all ranks' rows.

        torchmetrics lets a rank without rows send an empty *float* tensor, whatever the state's
        type, and int64 keys of the other ranks then arrive as garbage.
        """
        for name, dtype in self._state_types().items():
            if isinstance(getattr(self, name), list) and not getattr(self, name):
                setattr(self, name, [torch.empty(0, device=self.device, dtype=dtype)])
        super().sync(*args, **kwargs)

    def pairs(self) -> PairEmbeddings:
        """All rows collected so far (of all ranks while synchronised), on the CPU."""
        state = {name: self._joined(name, dtype) for name, dtype in self._state_types().items()}
        rows = len(state["query_key"])
        for name in ("query", "document"):
            state[name] = state[name].view(rows, -1) if rows else state[name].view(0, 1)  # (N, D)
        return PairEmbeddings(**state)

    def compute(self) -> dict[str, float]:
        """All metrics by name."""
        pairs = self.computed_from = self.pairs()
        values = self.retrieval(pairs)
        if pairs.score is not None:
            values["spearman"] = spearman(pair_cosines(pairs).numpy(), pairs.score.numpy())
        values |= similarity_gap(pairs, self.min_score)
        return values | space_health(pairs, self.min_score, self.max_rows)

    def reset(self) -> None:
        """Forgets all rows."""
        super().reset()
        self.computed_from = None

    def chance(self) -> dict[str, float]:
        """Retrieval metrics expected of a random order of the last `compute`'s rows."""
        return self.retrieval.chance(self.computed_from or self.pairs())

    def _joined(self, name: str, dtype: torch.dtype) -> Tensor:
        value = getattr(self, name)
        if isinstance(value, list):  # a tensor after a sync over ranks
            value = torch.cat(value) if value else torch.empty(0, dtype=dtype)
        return value.cpu()
