"""Values of a key whose runs end with equal results."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from polyqwen.report.comparison.swept import other_values
from polyqwen.runs.run_folder import RunFolder

EQUAL = 1e-5  # results that differ by less are the same
Groups = tuple[tuple[str, ...], ...]  # of values with equal results


def equal_levels(key: str, swept: Mapping[str, list[str]], runs: Sequence[RunFolder]) -> Groups:
    """Groups of values that have equal results wherever two of them meet, and do meet."""
    levels, cells = swept[key], other_values(key, swept, runs)
    blocks: dict[Any, dict[str, dict[str, float]]] = {}
    for level, cell, run in zip(levels, cells, runs, strict=True):
        blocks.setdefault((cell, run.seed), {})[level] = _numbers(run.measured("trained"))
    groups: list[list[str]] = []
    for level in dict.fromkeys(levels):
        for group in groups:
            met = [
                _equal(block[level], block[other])
                for block in blocks.values()
                for other in group
                if level in block and other in block
            ]
            if met and all(met):
                group.append(level)
                break
        else:
            groups.append([level])
    return tuple(tuple(group) for group in groups if len(group) > 1)


def all_equal(groups: Groups, levels: Sequence[str]) -> bool:
    """Whether one group has all values."""
    return any(len(group) == len(set(levels)) for group in groups)


def merged_levels(values: Sequence[str], groups: Groups) -> list[str]:
    """Values, those with equal results under the name of the first of them."""
    first = {value: group[0] for group in groups for value in group}
    return [first.get(value, value) for value in values]


def _numbers(results: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    return {
        f"{view}/{name}": float(value)
        for view, metrics in results.items()
        for name, value in metrics.items()
        if isinstance(value, int | float)
    }


def _equal(one: Mapping[str, float], other: Mapping[str, float]) -> bool:
    return one.keys() == other.keys() and all(
        math.isclose(value, other[name], rel_tol=EQUAL, abs_tol=EQUAL)
        or (math.isnan(value) and math.isnan(other[name]))
        for name, value in one.items()
    )
