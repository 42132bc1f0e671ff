"""How far the tasks' gradients at the shared head point the same way."""

import math
from collections.abc import Mapping
from typing import Any

from polyqwen.report.format_values import MISSING
from polyqwen.report.page.charts import Charts
from polyqwen.runs.history import Series
from polyqwen.runs.run_folder import RunFolder

PREFIX = "gradient/cosine/"
AGAINST, TOGETHER = (214, 96, 77), (67, 147, 195)  # of the diverging scale RdBu


def conflicts(run: RunFolder, charts: Charts) -> dict[str, Any] | None:
    """Means over the run as a heat map's cells, the worst pair, and the pairs over the steps."""
    pairs = {
        tuple(key.removeprefix(PREFIX).split("/")): series
        for key, series in run.history.items()
        if key.startswith(PREFIX)
    }
    pairs = {pair: series for pair, series in pairs.items() if len(pair) == 2}
    if not pairs:
        return None
    means = {pair: _mean(series) for pair, series in pairs.items()}
    lowest = min(means, key=lambda pair: means[pair])
    tasks = [t for t in run.tasks if any(t in pair for pair in pairs)]
    lines = {f"{a} · {b}": series for (a, b), series in pairs.items()}
    return {
        "lowest": lowest,
        "mean": means[lowest],
        "negative": _negative(pairs[lowest]),
        "cells": {a: [_cell(means, a, b) for b in tasks] for a in tasks},
        "chart": charts.lines("Cosine over the run", lines, "above 0: together", zero=True),
    }


def _cell(means: Mapping[tuple[str, ...], float], a: str, b: str) -> tuple[str, str]:
    """Text and colour of a cell; a task beside itself says nothing."""
    if a == b:
        return "", ""
    value = means.get((a, b), means.get((b, a), math.nan))
    if math.isnan(value):
        return MISSING, ""
    end = TOGETHER if value > 0 else AGAINST
    mix = [round(247 + (c - 247) * min(1.0, abs(value) * 1.5)) for c in end]
    return f"{value:+.2f}", f"rgb({mix[0]},{mix[1]},{mix[2]})"


def _mean(series: Series) -> float:
    known = [value for value in series.values if math.isfinite(value)]
    return sum(known) / len(known) if known else math.nan


def _negative(series: Series) -> float:
    return sum(value < 0.0 for value in series.values) / max(len(series.values), 1)
