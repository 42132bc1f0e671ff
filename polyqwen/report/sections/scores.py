"""Each task's main metric, from a run's results."""

import math

from polyqwen.runs.run_folder import RunFolder
from polyqwen.runs.scores import ZERO_BY_CHANCE, main_metric


def main_values(run: RunFolder) -> dict[str, dict[str, float | None]]:
    """Task -> ``trained``, ``untrained`` and ``chance`` of its main metric."""
    found = {}
    for task, metrics in (run.results.get("trained") or {}).items():
        name = main_metric(metrics)
        if name is not None and "/" not in task:
            found[task] = {
                of: _value(run, of, task, name) for of in ("trained", "untrained", "chance")
            }
    return found


def mean_score(run: RunFolder, of: str) -> float | None:
    """The mean over tasks of their main metrics; None if one was not measured."""
    values = [known for task in main_values(run).values() if (known := task[of]) is not None]
    complete = values and len(values) == len(main_values(run))
    return sum(values) / len(values) if complete else None


def _value(run: RunFolder, of: str, task: str, name: str) -> float | None:
    metrics = (run.results.get(of) or {}).get(task)
    if metrics is None:
        return None
    value = metrics.get(name, 0.0 if of == "chance" and name in ZERO_BY_CHANCE else math.nan)
    return float(value) if value is not None and math.isfinite(value) else None
