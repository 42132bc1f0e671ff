"""A run's test results by task and metric, and the main metric of each task."""

import math
from collections.abc import Mapping
from typing import Any

Results = Mapping[str, Mapping[str, float]]  # view (a task or ``task/ablation``) → metric → value
MAIN = ("spearman", "macro_f1", "recall@1")  # the first that a task has
ZERO_BY_CHANCE = ("spearman",)  # which a random order of scored pairs has no entry for
SCORE, RETENTION = "score", "retention"


def results_of(metrics: Mapping[str, Any], split: str = "test") -> dict[str, dict[str, float]]:
    """``test/<view>/<metric>`` entries of what a test run logged as view → metric → value."""
    results: dict[str, dict[str, float]] = {}
    for key, value in metrics.items():
        prefix, _, rest = key.partition("/")
        view, _, metric = rest.rpartition("/")
        if prefix == split and view:
            results.setdefault(view, {})[metric] = float(value)
    return results


def main_metric(metrics: Mapping[str, object]) -> str | None:
    """Spearman of scored pairs, macro-F1 of labels, else recall@1; None of texts only watched."""
    return next((name for name in MAIN if name in metrics), None)


def main_value(results: Results, task: str, metric: str | None, ablation: str = "") -> float:
    """A task's main metric in some results; NaN where it was not measured.

    A random order of scored pairs has no entry for Spearman; it is 0.
    """
    view = results.get(f"{task}/{ablation}" if ablation else task)
    if view is None or metric is None:
        return math.nan
    return view.get(metric, 0.0 if metric in ZERO_BY_CHANCE else math.nan)
