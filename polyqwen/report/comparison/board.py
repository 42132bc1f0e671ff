"""The comparison itself: estimates over seeds, paired differences to the baseline, costs."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from polyqwen.metrics.paired import (
    Difference,
    Estimate,
    estimate,
    holm,
    paired_difference,
    relative_gain,
)
from polyqwen.runs.run_folder import RunFolder
from polyqwen.runs.scores import main_metric, main_value

Variants = Mapping[str, Sequence[RunFolder]]


class Variant(NamedTuple):
    """A recipe over its seeds, beside the baseline.

    Attributes:
        name: of the variant.
        seeds: of its finished runs.
        score: overall test score.
        difference: of the score to the baseline's at the same seeds.
        p: of that difference, adjusted for all variants.
        tasks: main test metric by task.
        task_differences: to the baseline's at the same seeds.
        task_p: of those, adjusted for all variants and tasks.
        gains: Δ % by task, of the means over shared seeds.
        gain: their mean.
        untrained: the score before training.
        fit_seconds: wall-clock of the fit, mean over seeds.
        step_seconds: median time of a step, mean over seeds.
        cost: its ratio to the baseline's.
    """

    name: str
    seeds: tuple[int, ...]
    score: Estimate
    difference: Difference
    p: float
    tasks: dict[str, Estimate]
    task_differences: dict[str, Difference]
    task_p: dict[str, float]
    gains: dict[str, float]
    gain: float
    untrained: Estimate
    fit_seconds: float
    step_seconds: float
    cost: float


class Reference(NamedTuple):
    """What there is without training, over all runs."""

    score: Estimate
    tasks: dict[str, Estimate]


class Board(NamedTuple):
    """All variants, the best first; `metrics` names each task's main metric."""

    rows: list[Variant]
    baseline: str
    metrics: dict[str, str]
    untrained: Reference
    chance: Reference

    @property
    def tasks(self) -> list[str]:
        """Tasks compared."""
        return list(self.metrics)

    def rank(self, name: str) -> int:
        """A variant's place by score, 1 being the best."""
        return 1 + next(i for i, row in enumerate(self.rows) if row.name == name)


def common_tasks(variants: Variants) -> list[str]:
    """Tasks that all runs were tested on, in the first run's order.

    Raises:
        ValueError: there is none.
    """
    runs = [run for own in variants.values() for run in own]
    tasks = [t for t in runs[0].tested_tasks if all(t in run.tested_tasks for run in runs)]
    if not tasks:
        named = {name: own[0].tested_tasks for name, own in variants.items()}
        raise ValueError(
            f"the runs have no task in common: {named}; compare runs that were tested on the same"
        )
    return tasks


def build_board(variants: Variants, baseline: str) -> Board:
    """Compares variants.

    Args:
        variants: name -> its finished runs, one per seed.
        baseline: the variant to compare with.

    Raises:
        ValueError: there is no such variant, or no task in common.
    """
    if baseline not in variants:
        known = ", ".join(variants)
        raise ValueError(f"baseline {baseline!r} has no finished run; choose one of {known}")
    tasks = common_tasks(variants)
    base = variants[baseline]
    rows = [_row(name, own, base, tasks) for name, own in variants.items()]
    rows = _with_adjusted(rows, baseline, tasks)
    rows.sort(key=lambda row: -math.inf if math.isnan(row.score.mean) else row.score.mean)
    runs = [run for own in variants.values() for run in own]
    trained = runs[0].measured("trained")
    metrics = {t: main for t in tasks if (main := main_metric(trained[t])) is not None}
    references = [_reference(runs, metrics, of) for of in ("untrained", "chance")]
    return Board(rows[::-1], baseline, metrics, *references)


def by_seed(runs: Sequence[RunFolder], value: Callable[[RunFolder], float]) -> dict[int, float]:
    """Seed -> value of each run."""
    return {run.seed: value(run) for run in runs}


def _row(
    name: str, runs: Sequence[RunFolder], base: Sequence[RunFolder], tasks: list[str]
) -> Variant:
    estimates, differences, gains = {}, {}, {}
    for task in tasks:
        own, theirs = (
            by_seed(r, lambda run, task=task: run.value_of(task, tasks))  # type: ignore[misc]
            for r in (runs, base)
        )
        estimates[task] = estimate(list(own.values()))
        differences[task] = paired_difference(own, theirs)
        shared = [seed for seed in own if seed in theirs]
        means = [estimate([v[s] for s in shared]).mean for v in (own, theirs)]
        gains[task] = relative_gain(*means)
    scores, theirs = (by_seed(r, lambda run: run.score(tasks)) for r in (runs, base))
    step = _mean(runs, "seconds_per_step")
    return Variant(
        name=name,
        seeds=tuple(run.seed for run in runs),
        score=estimate(list(scores.values())),
        difference=paired_difference(scores, theirs),
        p=math.nan,
        tasks=estimates,
        task_differences=differences,
        task_p={},
        gains=gains,
        gain=sum(gains.values()) / len(gains),
        untrained=_measured([run.score(tasks, "untrained") for run in runs]),
        fit_seconds=_mean(runs, "fit_seconds"),
        step_seconds=step,
        cost=step / _mean(base, "seconds_per_step"),
    )


def _with_adjusted(rows: list[Variant], baseline: str, tasks: list[str]) -> list[Variant]:
    """Holm over the variants for the score, over variants × tasks for the tasks."""
    others = [row for row in rows if row.name != baseline]
    overall = holm([row.difference.p for row in others])
    single = iter(holm([row.task_differences[t].p for row in others for t in tasks]))
    adjusted = {
        row.name: row._replace(p=p, task_p={task: next(single) for task in tasks})
        for row, p in zip(others, overall, strict=True)
    }
    untested = dict.fromkeys(tasks, math.nan)
    return [adjusted.get(row.name, row._replace(task_p=untested)) for row in rows]


def _mean(runs: Sequence[RunFolder], key: str) -> float:
    return _measured([run.timing.get(key, math.nan) for run in runs]).mean


def _measured(values: list[float]) -> Estimate:
    """Of those runs that have it: not all record everything."""
    return estimate([value for value in values if not math.isnan(value)])


def _reference(runs: Sequence[RunFolder], metrics: Mapping[str, str], of: str) -> Reference:
    tasks = list(metrics)
    by_task = {
        task: _measured([main_value(run.measured(of), task, metric) for run in runs])
        for task, metric in metrics.items()
    }
    return Reference(_measured([run.score(tasks, of) for run in runs]), by_task)
