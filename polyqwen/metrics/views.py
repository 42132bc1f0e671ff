"""The metrics of all views of a split: of each task, and of a task under an ablation."""

import copy
import math
from collections.abc import Mapping, Sequence

from polyqwen.metrics.space import SPACE_KEYS
from polyqwen.metrics.split import SplitMetrics
from polyqwen.metrics.types import PairEmbeddings

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
