"""What the page of several runs is made from."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from polyqwen.report.comparison.board import Board
from polyqwen.report.comparison.captions import Words
from polyqwen.report.comparison.claims import Tested
from polyqwen.runs.history import Series


class SweepRun(NamedTuple):
    """One finished run.

    Attributes:
        variant: its recipe.
        seed: its seed.
        score: on the test split, mean of the tasks.
        fit_seconds: wall-clock; NaN if it was not kept.
        folder: as seen from the sweep's.
        page: its own page as seen from this one, or empty.
        history: all logged series.
        settings: its configuration by dotted key.
    """

    variant: str
    seed: int
    score: float
    fit_seconds: float
    folder: str
    page: str
    history: Mapping[str, Series]
    settings: Mapping[str, Any]


class Failed(NamedTuple):
    """A run that does not count."""

    name: str
    folder: str
    why: str


class SweepFiles(NamedTuple):
    """All runs of a sweep or a study, the best variant's first.

    Attributes:
        title: of the page.
        board: the comparison.
        claims: of a study, tested.
        words: what is said beside the numbers.
        runs: the finished ones.
        failed: the others.
        differing: setting -> its value in each run, where they are not all the same.
    """

    title: str
    board: Board
    claims: Sequence[Tested]
    words: Words
    runs: Sequence[SweepRun]
    failed: Sequence[Failed]
    differing: Mapping[str, Sequence[Any]]
