"""What a comparison knows of one finished run, and the values that it is compared by."""

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from polyqwen.runs.main_metric import ZERO_BY_CHANCE, main_metric

Results = Mapping[str, Mapping[str, float]]  # view → metric → value
SCORE, RETENTION = "score", "retention"


class RunRecord(NamedTuple):
    """One finished run.

    Attributes:
        folder: of the run.
        seed: its seed; runs of one variant differ in nothing else.
        trained: test metrics by view, a task or ``task/ablation``.
        untrained: the same before training; empty if it was not measured.
        chance: the same of a random order.
        timing: ``seconds_per_step`` and ``fit_seconds``; empty in runs of old.
        forgetting: ``at_switch`` and ``end`` of the first phase's validation metric, or empty.
        history: ``metrics.csv``, if there is one.
    """

    folder: Path
    seed: int
    trained: Results
    untrained: Results
    chance: Results
    timing: Mapping[str, float]
    forgetting: Mapping[str, float]
    history: Path | None

    @property
    def tasks(self) -> list[str]:
        """Tasks tested, in the run's order, without those that are only watched."""
        plain = {view: metrics for view, metrics in self.trained.items() if "/" not in view}
        return [task for task, metrics in plain.items() if main_metric(metrics)]


def main_value(results: Results, task: str, metric: str | None, ablation: str = "") -> float:
    """A task's main metric in some results; NaN where it was not measured.

    A random order of scored pairs has no entry for Spearman; it is 0.
    """
    view = results.get(f"{task}/{ablation}" if ablation else task)
    if view is None or metric is None:
        return math.nan
    return view.get(metric, 0.0 if metric in ZERO_BY_CHANCE else math.nan)


def score(run: RunRecord, tasks: list[str], of: str = "trained", ablation: str = "") -> float:
    """Mean over tasks of the main metric, as in ``val/score``.

    Args:
        run: the run.
        tasks: those to take the mean of.
        of: ``trained``, ``untrained`` or ``chance``.
        ablation: of the queries; a task that it was not measured for makes the mean NaN.
    """
    results: Results = getattr(run, of)
    values = [main_value(results, t, main_metric(run.trained[t]), ablation) for t in tasks]
    return sum(values) / len(values) if values else math.nan


def value_of(run: RunRecord, metric: str, tasks: list[str]) -> float:
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
        return run.forgetting.get("end", math.nan) - run.forgetting.get("at_switch", math.nan)
    if name == SCORE:
        return score(run, tasks, ablation=ablation)
    task, _, own = name.partition("/")
    view = run.trained.get(task)
    if view is None:
        return math.nan
    return main_value(run.trained, task, own or main_metric(view), ablation)


def common_folder(variants: Mapping[str, Sequence[RunRecord]]) -> Path:
    """The folder that holds all runs' folders; a page names them as seen from it."""
    folders = [run.folder.absolute() for runs in variants.values() for run in runs]
    return Path(os.path.commonpath([folder.parent for folder in folders]))
