"""What metrics of a whole split share: rows collected batch by batch, gathered over ranks."""

from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from polyqwen.metrics.types import PairEmbeddings


class SplitMetrics(Metric):
    """Collects columns of `PairEmbeddings`; subclasses say which, and what to make of them.

    Args:
        kwargs: passed on to ``torchmetrics.Metric``.

    Attributes:
        paired: whether rows are queries with documents, which one can look for.
        main: the metric that goes into the run's score; None for a task without one.
    """

    full_state_update = False
    paired: bool = False
    scored: bool = False
    main: str | None = None
    min_score: float | None = None

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.computed_from: PairEmbeddings | None = None  # all ranks' rows of the last compute
        for name in self.columns():
            self.add_state(name, default=[], dist_reduce_fx="cat")

    @abstractmethod
    def columns(self) -> dict[str, torch.dtype]:
        """Fields of `PairEmbeddings` that are kept, with their types."""

    @abstractmethod
    def values(self, pairs: PairEmbeddings) -> dict[str, float]:
        """All metrics of some rows by name; NaN for what is undefined for want of rows."""

    @abstractmethod
    def chance_of(self, pairs: PairEmbeddings) -> dict[str, float]:
        """What a model that has learnt nothing would reach on these rows."""

    def update(self, pairs: PairEmbeddings) -> None:
        """Adds rows, possibly none; tensors may live on any device and in any float type."""
        for name, dtype in self.columns().items():
            # Flat, so that a rank that saw no rows can take part in the gather without knowing D.
            value = getattr(pairs, name).detach().to(self.device, dtype).flatten()
            getattr(self, name).append(value)

    def sync(self, *args: Any, **kwargs: Any) -> None:
        """Gathers all ranks' rows.

        torchmetrics lets a rank without rows send an empty *float* tensor, whatever the state's
        type, and int64 keys of the other ranks then arrive as garbage.
        """
        for name, dtype in self.columns().items():
            if isinstance(getattr(self, name), list) and not getattr(self, name):
                setattr(self, name, [torch.empty(0, device=self.device, dtype=dtype)])
        super().sync(*args, **kwargs)

    def pairs(self) -> PairEmbeddings:
        """All rows collected so far (of all ranks while synchronised), on the CPU.

        What is not kept shares the memory of what is: the document is the query.
        """
        state = {name: self._joined(name, dtype) for name, dtype in self.columns().items()}
        rows = len(state["query_key"])
        for name in {"query", "document", "logits"} & set(state):
            state[name] = state[name].view(rows, -1) if rows else state[name].view(0, 1)  # (N, …)
        state.setdefault("document", state["query"])
        state.setdefault("document_key", state["query_key"])
        return PairEmbeddings(**state)

    def compute(self) -> dict[str, float]:
        """All metrics by name."""
        self.computed_from = self.pairs()
        return self.values(self.computed_from)

    def reset(self) -> None:
        """Forgets all rows."""
        super().reset()
        self.computed_from = None

    def chance(self) -> dict[str, float]:
        """`chance_of` the last `compute`'s rows."""
        return self.chance_of(self.computed_from or self.pairs())

    def _joined(self, name: str, dtype: torch.dtype) -> Tensor:
        value = getattr(self, name)
        if isinstance(value, list):  # a tensor after a sync over ranks
            value = torch.cat(value) if value else torch.empty(0, dtype=dtype)
        return value.cpu()
