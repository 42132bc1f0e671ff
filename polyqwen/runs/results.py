"""Reads results back from what a test run logged."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from polyqwen.runs.history import read_history

Results = dict[str, dict[str, float]]


def results_of(metrics: Mapping[str, Any], split: str = "test") -> Results:
    """``test/<view>/<metric>`` entries as view → metric → value."""
    results: Results = {}
    for key, value in metrics.items():
        prefix, _, rest = key.partition("/")
        view, _, metric = rest.rpartition("/")
        if prefix == split and view:
            results.setdefault(view, {})[metric] = float(value)
    return results


def validation_score(folder: Path) -> float | None:
    """The last ``val/score`` of a run's folder, what a sweeper maximises; None without a CSV log.

    The test split is left for the end: a sweep that chose by it would flatter its best run.
    """
    metrics = folder / "csv" / "metrics.csv"
    if not metrics.is_file():
        return None
    series = read_history(metrics).get("val/score")
    return series.values[-1] if series is not None and series.values else None
