"""Axes of a comparison: what each key that differs between the runs does, beside the seed."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from polyqwen.metrics.main_effect import MainEffect, main_effect
from polyqwen.metrics.paired import holm
from polyqwen.report.comparison.claims import BELIEVED
from polyqwen.report.comparison.equal_results import Groups, all_equal, equal_levels, merged_levels
from polyqwen.report.comparison.swept import other_values, swept_values
from polyqwen.runs.run_folder import RunFolder


class Axis(NamedTuple):
    """A key that differs between the runs, at equal other keys.

    Attributes:
        key: its name; several that always change together are joined by `` + ``.
        levels: its values.
        seeds: most seeds of one setting.
        score: effect on the score; None where the key never changes alone.
        p: of the score's effect, adjusted for all axes; NaN for an inert one, which is no test.
        interaction_p: that the effect depends on the other keys; adjusted in the same way.
        tasks: effect on each task's main metric.
        task_p: of those, adjusted for all axes and tasks.
        equal: groups of values whose runs have equal results, at every other setting and seed.
    """

    key: str
    levels: tuple[str, ...]
    seeds: int
    score: MainEffect | None
    p: float
    interaction_p: float
    tasks: dict[str, MainEffect]
    task_p: dict[str, float]
    equal: Groups

    @property
    def inert(self) -> bool:
        """Whether all values give equal results."""
        return all_equal(self.equal, self.levels)

    @property
    def verdict(self) -> str:
        """In words; without repeated seeds only equality can be told."""
        some = "; ".join(f"{' and '.join(group)} give equal results" for group in self.equal)
        if self.inert:
            return "no effect at all: all results are equal, the key may be inert"
        return f"{self._size()}; {some}" if some else self._size()

    def _size(self) -> str:
        if self.score is None:
            return "never changes alone"
        if not self.score.degrees[1]:
            few = "no setting has two seeds" if self.seeds < 2 else "too few seeds in common"
            return f"cannot be told from seed noise: {few}"
        if self.p < BELIEVED:
            return "exceeds the seed noise"
        if self.interaction_p < BELIEVED:
            return "exceeds the seed noise, in a way that depends on the other keys"
        if tasks := [task for task, p in self.task_p.items() if p < BELIEVED]:
            return f"exceeds the seed noise on {', '.join(tasks)}, not in the score"
        return "within the seed noise"


def build_axes(runs: Sequence[RunFolder], tasks: list[str]) -> list[Axis]:
    """The axes of finished runs, in the order of their keys.

    Each is tested by `polyqwen.metrics.main_effect.main_effect`, over its values at equal other
    keys and seeds. Runs without a score (NaN: they diverged) are left out of the tests, and so are
    repetitions that differ in values with equal results alone: they are one observation.
    """
    swept = swept_values(runs)
    equal = {key: equal_levels(key, swept, runs) for key in swept}
    merged = {key: merged_levels(values, equal[key]) for key, values in swept.items()}
    axes = [_axis(key, merged | {key: swept[key]}, runs, tasks, equal[key]) for key in swept]
    overall = holm([p for axis in axes for p in (axis.p, axis.interaction_p)])
    single = iter(holm([p for axis in axes for p in axis.task_p.values()]))
    return [
        axis._replace(
            p=overall[2 * i],
            interaction_p=overall[2 * i + 1],
            task_p={task: next(single) for task in axis.task_p},
        )
        for i, axis in enumerate(axes)
    ]


def _first_of_each(swept: Mapping[str, list[str]], runs: Sequence[RunFolder]) -> list[int]:
    """Places of the first run of each setting and seed."""
    firsts: dict[Any, int] = {}
    for i, run in enumerate(runs):
        firsts.setdefault((run.seed, *(values[i] for values in swept.values())), i)
    return list(firsts.values())


def _axis(
    key: str,
    swept: Mapping[str, list[str]],
    runs: Sequence[RunFolder],
    tasks: list[str],
    equal: Groups,
) -> Axis:
    once = _first_of_each(swept, runs)
    runs = [runs[i] for i in once]
    swept = {name: [values[i] for i in once] for name, values in swept.items()}
    levels, cells = swept[key], other_values(key, swept, runs)
    tested = not all_equal(equal, levels)
    score = _effect([run.score(tasks) for run in runs], levels, cells, runs)
    by_task = {
        task: effect
        for task in (tasks if len(tasks) > 1 and tested else ())
        if (effect := _effect([r.value_of(task, tasks) for r in runs], levels, cells, runs))
    }
    settings: dict[Any, set[int]] = {}
    for level, cell, run in zip(levels, cells, runs, strict=True):
        settings.setdefault((level, cell), set()).add(run.seed)
    return Axis(
        key=key,
        levels=tuple(dict.fromkeys(levels)),
        seeds=max(map(len, settings.values())),
        score=score,
        p=score.difference.p if score and tested else math.nan,
        interaction_p=score.interaction_p if score and tested else math.nan,
        tasks=by_task,
        task_p={task: effect.difference.p for task, effect in by_task.items()},
        equal=equal,
    )


def _effect(
    values: Sequence[float], levels: Sequence[str], cells: Sequence[Any], runs: Sequence[RunFolder]
) -> MainEffect | None:
    known = [i for i, value in enumerate(values) if math.isfinite(value)]
    if not known:
        return None
    return main_effect(
        [values[i] for i in known],
        [levels[i] for i in known],
        [cells[i] for i in known],
        [runs[i].seed for i in known],
    )
