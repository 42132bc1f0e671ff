"""Metrics of whole splits: rows collected batch by batch, gathered over ranks, view by view."""

import copy
import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from polyqwen.metrics.space import SPACE_KEYS
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


View = tuple[str, str]  # a task, and what its queries are deprived of ("none": nothing)


class ViewMetrics:
    """Collects the rows of one validation or test, view by view.

    Args:
        metrics: task -> metrics, copied for each view.
    """

    def __init__(self, metrics: Mapping[str, SplitMetrics]) -> None:
        self.metrics = dict(metrics)
        self._of: dict[View, SplitMetrics] = {}

    def update(self, view: View, pairs: PairEmbeddings) -> None:
        """Adds rows of this process."""
        self._of_view(view).update(pairs)

    def scalars(self, split: str, views: Sequence[View]) -> dict[str, float]:
        """``<split>/<task>/<metric>``, ``space/<task>/<monitor>`` in validation, ``<split>/score``.

        A collective: all ranks come with the same views in the same order, also one that has no
        rows of a view.
        """
        values: dict[str, float] = {}
        main = []
        for view in views:
            metrics = self._of_view(view)
            computed = metrics.compute()
            if metrics.main is not None and view[1] == "none":
                main.append(computed[metrics.main])
            for key, value in computed.items():
                monitor = split == "val" and key in SPACE_KEYS
                values[f"{'space' if monitor else split}/{name_of(view)}/{key}"] = value
        return values | {f"{split}/score": sum(main) / len(main) if main else math.nan}

    def chance(self) -> dict[str, float]:
        """``chance/<task>/<metric>`` of the views that `scalars` has computed."""
        return {
            f"chance/{name_of(view)}/{key}": value
            for view, metrics in self._of.items()
            for key, value in metrics.chance().items()
        }

    def take(self) -> dict[str, PairEmbeddings]:
        """What the metrics were computed from, by view; the next split begins afresh."""
        computed = {name_of(view): metrics.computed_from for view, metrics in self._of.items()}
        self._of = {}
        return {name: pairs for name, pairs in computed.items() if pairs is not None}

    def _of_view(self, view: View) -> SplitMetrics:
        if view not in self._of:
            self._of[view] = copy.deepcopy(self.metrics[view[0]])
        return self._of[view]


def name_of(view: View) -> str:
    """``task``, or ``task/ablation``."""
    task, ablation = view
    return task if ablation == "none" else f"{task}/{ablation}"
