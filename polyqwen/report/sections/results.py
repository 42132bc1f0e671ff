"""What the model can do on the test split, beside the untrained one and a random order."""

from collections.abc import Mapping, Sequence
from typing import Any

from polyqwen.report.curves import LABELS
from polyqwen.report.format_values import number
from polyqwen.runs.run_folder import RunFolder
from polyqwen.runs.scores import main_metric, main_value

MODELS = ("trained", "untrained", "chance")
GALLERIES = {"hardest": "the queries it fails at most", "spread": "some of every kind"}


def results(run: RunFolder) -> dict[str, Any] | None:
    """A bar per task, gains that `evaluate.py` measured, every metric, and what was forgotten."""
    if not run.measured("trained"):
        return None
    forgetting = run.results.get("forgetting") or {}
    return {
        "bars": [_bar(run, task) for task in run.tested_tasks],
        "gains": _gains(run),
        "views": {view: _every_metric(run, view) for view in run.measured("trained")},
        "forgetting": forgetting if forgetting.get("end") is not None else None,
    }


def _bar(run: RunFolder, task: str) -> dict[str, Any]:
    """The task, its main metric, and that metric's value of each model; NaN if not measured."""
    metric = main_metric(run.measured("trained")[task]) or ""
    values = {of: main_value(run.measured(of), task, metric) for of in MODELS}
    return {"task": task, "metric": LABELS.get(metric, metric), **values}


def _gains(run: RunFolder) -> list[Sequence[str]]:
    """By how much the training beats no training, with intervals; of the run's own data alone."""
    if run.evaluation.get("split") != "test" or run.evaluation.get("data_root"):
        return []
    gains = run.evaluation.get("advantage_over_untrained") or {}
    return [
        [task, g["metric"], f"{g['difference']:+.3f}", f"{g['low']:+.3f} … {g['high']:+.3f}"]
        for task, g in gains.items()
    ]


def _every_metric(run: RunFolder, view: str) -> list[Sequence[str]]:
    """A view is a task, or a task of which something was taken away."""
    values: Sequence[Mapping[str, float]] = [run.measured(of).get(view, {}) for of in MODELS]
    return [[name, *(number(of.get(name), 4) for of in values)] for name in values[0]]


def gallery(run: RunFolder, kind: str) -> dict[str, Any] | None:
    """Queries and what the model found for them, by task.

    Args:
        run: the run.
        kind: ``hardest``, or ``spread`` evenly over the split, which `evaluate.py` keeps.
    """
    tasks = {task: kinds[kind] for task, kinds in run.galleries.items() if kinds.get(kind)}
    return {"which": GALLERIES[kind], "tasks": tasks} if tasks else None
