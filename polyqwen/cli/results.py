"""Reads results back from what a test run logged."""

from collections.abc import Mapping
from typing import Any

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
