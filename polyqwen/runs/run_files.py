"""What the page of a run is made from: its files, read."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from polyqwen.data.sampling.curriculum import Curriculum
from polyqwen.runs.history import Series
from polyqwen.weighting.weight_update import WeightUpdate


class RunFiles(NamedTuple):
    """One run, finished or not.

    Attributes:
        folder: of the run.
        settings: every value of its configuration by dotted key.
        overrides: what the command line gave.
        tasks: in the configuration's order.
        curriculum: None where the configuration has one that is not ours.
        results: ``results.json``; empty before the run has ended.
        history: all logged series.
        updates: of the task weights, with reasons.
        galleries: task -> kind -> rows; see `gallery_file`.
        evaluation: ``evaluation/metrics.json``; empty if `evaluate.py` was not run.
        environment: of the machine that trained; empty if it was not kept.
        warnings: lines of the log.
    """

    folder: Path
    settings: Mapping[str, Any]
    overrides: Sequence[str]
    tasks: Sequence[str]
    curriculum: Curriculum | None
    results: Mapping[str, Any]
    history: dict[str, Series]
    updates: Sequence[WeightUpdate]
    galleries: Mapping[str, Mapping[str, Sequence[Mapping[str, Any]]]]
    evaluation: Mapping[str, Any]
    environment: Mapping[str, Any]
    warnings: Sequence[str]

    @property
    def name(self) -> str:
        """What to call it: the folder's last parts, as in ``main/2026-01-31_12-00-00``."""
        parts = [part for part in self.folder.absolute().parts if part != "/"]
        return "/".join(parts[-2:])

    @property
    def switches(self) -> list[int]:
        """Steps at which a phase follows another."""
        if self.curriculum is None:
            return []
        first = self.curriculum.start_step
        return [phase.start for phase in self.curriculum.phases[1:] if phase.start > first]

    def last(self, key: str) -> float | None:
        """The last value logged under a key."""
        series = self.history.get(key)
        return series.values[-1] if series and series.values else None
