"""Metrics of a label task: loss, accuracy and macro-F1, beside the majority's."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torchmetrics.functional.classification import multiclass_accuracy, multiclass_f1_score

from polyqwen.metrics.space import MAX_ROWS, effective_rank, sample_distinct, uniformity
from polyqwen.metrics.split import SplitMetrics
from polyqwen.metrics.types import PairEmbeddings

RATES = ("loss", "accuracy", "macro_f1")  # of a label task


class SpaceMetrics(SplitMetrics):
    """Monitors of the space for texts that nothing else is known of.

    ``compute`` returns ``rows``, ``uniformity`` and ``effective_rank``; the run's score leaves the
    task out.

    Args:
        max_rows: distinct texts, ≥ 2.
        kwargs: passed on to ``torchmetrics.Metric``.
    """

    def __init__(self, max_rows: int = MAX_ROWS, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.max_rows = max_rows

    def columns(self) -> dict[str, torch.dtype]:
        """The texts' embeddings."""
        return {"query": torch.float32, "query_key": torch.int64}

    def values(self, pairs: PairEmbeddings) -> dict[str, float]:
        """See the class."""
        query = sample_distinct(pairs.query, pairs.query_key, self.max_rows)
        return {
            "rows": float(len(pairs.query)),
            "uniformity": uniformity(query) if len(query) > 1 else float("nan"),
            "effective_rank": effective_rank(query),
        }

    def chance_of(self, pairs: PairEmbeddings) -> dict[str, float]:
        """Nothing to be right about."""
        return {}


class ClassificationMetrics(SpaceMetrics):
    """Classification and embedding-space metrics of one label task.

    ``compute`` returns ``loss`` (cross entropy), ``accuracy``, ``macro_f1`` (mean over classes that
    are there or were predicted), ``rows`` and the monitors ``uniformity`` and ``effective_rank``.
    ``chance`` is the baseline that always says the split's most frequent class; its loss is that
    of the class frequencies. Without rows all are NaN.

    Args:
        classes: names of the classes, at least 2.
        max_rows: distinct texts for the monitors of the space, ≥ 2.
        kwargs: passed on to ``torchmetrics.Metric``.
    """

    main = "macro_f1"

    def __init__(self, classes: Sequence[str], max_rows: int = MAX_ROWS, **kwargs: Any) -> None:
        if len(classes) < 2:
            raise ValueError(f"metrics.classes are {list(classes)}: give at least 2")
        super().__init__(max_rows, **kwargs)
        self.classes = tuple(classes)

    def columns(self) -> dict[str, torch.dtype]:
        """Logits and classes, and the texts' embeddings."""
        return {**super().columns(), "label": torch.int64, "logits": torch.float32}

    def update(self, pairs: PairEmbeddings) -> None:
        """Adds rows, possibly none; they need ``label`` and ``logits``."""
        if pairs.label is None or pairs.logits is None:
            raise ValueError("these rows have no labels or logits; use TaskMetrics for pairs")
        super().update(pairs)

    def values(self, pairs: PairEmbeddings) -> dict[str, float]:
        """See the class."""
        assert pairs.label is not None and pairs.logits is not None
        if not len(pairs.label):
            return {**dict.fromkeys(RATES, float("nan")), **super().values(pairs)}
        return {
            "loss": F.cross_entropy(pairs.logits, pairs.label).item(),
            **self._rates(pairs.logits.argmax(dim=1), pairs.label),
            **super().values(pairs),
        }

    def chance_of(self, pairs: PairEmbeddings) -> dict[str, float]:
        """The most frequent class of these rows for all of them."""
        assert pairs.label is not None
        if not len(pairs.label):
            return dict.fromkeys(RATES, float("nan"))
        counts = torch.bincount(pairs.label, minlength=len(self.classes)).double()
        frequencies = counts / counts.sum()
        majority = torch.full_like(pairs.label, int(counts.argmax()))
        return {
            "loss": torch.special.entr(frequencies).sum().item(),
            **self._rates(majority, pairs.label),
        }

    def _rates(self, predicted: Tensor, label: Tensor) -> dict[str, float]:
        classes = len(self.classes)
        accuracy = multiclass_accuracy(predicted, label, classes, average="micro")
        f1 = multiclass_f1_score(predicted, label, classes, average="macro")
        return {"accuracy": accuracy.item(), "macro_f1": f1.item()}
