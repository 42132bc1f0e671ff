"""A run's test results as single numbers: main metrics, their mean, values by name."""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from polyqwen.runs.run_folder import RunFolder

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


def score(run: "RunFolder", tasks: list[str], of: str = "trained", ablation: str = "") -> float:
    """Mean over tasks of the main metric, as in ``val/score``.

    Args:
        run: the run.
        tasks: those to take the mean of.
        of: ``trained``, ``untrained`` or ``chance``.
        ablation: of the queries; a task that it was not measured for makes the mean NaN.
    """
    trained, results = run.measured("trained"), run.measured(of)
    values = [main_value(results, t, main_metric(trained[t]), ablation) for t in tasks]
    return sum(values) / len(values) if values else math.nan


def value_of(run: "RunFolder", metric: str, tasks: list[str]) -> float:
    """A value by its name; higher is better in all of them. NaN where the run lacks it.

    Args:
        run: the run.
        metric: ``score``; a task, for its main metric; ``task/metric``; each perhaps followed by
            ``@ablation``; or ``retention``, the first phase's validation metric at the end minus at
            the switch (0: nothing was forgotten).
        tasks: tasks of the score.
    """
    name, _, ablation = metric.partition("@")
    if name == RETENTION:
        forgetting = run.results.get("forgetting") or {}
        return forgetting.get("end", math.nan) - forgetting.get("at_switch", math.nan)
    if name == SCORE:
        return score(run, tasks, ablation=ablation)
    task, _, own = name.partition("/")
    trained = run.measured("trained")
    return main_value(trained, task, own or main_metric(trained.get(task, {})), ablation)
