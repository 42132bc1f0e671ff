"""The leaderboard's columns, and how its numbers read."""

import math
from collections.abc import Callable
from typing import NamedTuple

from polyqwen.metrics.paired import Difference, Estimate
from polyqwen.report.comparison.board import Board, Reference, Row
from polyqwen.report.results_table import ALL_HEADINGS, MISSING


class Column(NamedTuple):
    """A column of the leaderboard.

    Attributes:
        title: its heading.
        text: of a row's cell.
        key: by which rows are sorted.
        reference: text of the cell of the untrained model and of chance.
    """

    title: str
    text: Callable[[Row], str]
    key: Callable[[Row], float | str]
    reference: Callable[[Reference], str] = lambda _: ""


def columns(board: Board) -> list[Column]:
    """All columns: names, then numbers, the rank by score last to find a row in the figures."""
    return [
        Column("variant", lambda r: r.name, lambda r: r.name),
        Column("seeds", lambda r: str(len(r.seeds)), lambda r: len(r.seeds)),
        Column("score", lambda r: plus_minus(r.score), lambda r: r.score.mean, _score),
        Column("Δ score", _difference(board), lambda r: r.difference.mean),
        Column("p", lambda r: p_value(r.p), lambda r: r.p),
        Column("Δ %", _gain(board), lambda r: r.gain),
        *(_task_column(board, task) for task in board.tasks),
        Column("untrained", lambda r: number(r.untrained.mean), lambda r: r.untrained.mean),
        Column("ms/step", lambda r: number(1e3 * r.step_seconds, 0), lambda r: r.step_seconds),
        Column("cost", lambda r: number(r.cost, 2, "×"), lambda r: r.cost),
        Column("fit, s", lambda r: number(r.fit_seconds, 0), lambda r: r.fit_seconds),
        Column("rank", lambda r: str(board.rank(r.name)), lambda r: board.rank(r.name)),
    ]


def _score(reference: Reference) -> str:
    return number(reference.score.mean)


def _task_column(board: Board, task: str) -> Column:
    return Column(
        f"{task} {ALL_HEADINGS[board.metrics[task]]}",
        lambda r: plus_minus(r.tasks[task]),
        lambda r: r.tasks[task].mean,
        lambda reference: number(reference.tasks[task].mean),
    )


def _difference(board: Board) -> Callable[[Row], str]:
    return lambda r: "baseline" if r.name == board.baseline else signed(r.difference)


def _gain(board: Board) -> Callable[[Row], str]:
    return lambda r: "" if r.name == board.baseline else number(r.gain, 1, sign=True)


def number(value: float, places: int = 3, unit: str = "", sign: bool = False) -> str:
    """A number, or a dash for NaN."""
    if math.isnan(value):
        return MISSING
    return f"{value:{'+' if sign else ''}.{places}f}{unit}"


def plus_minus(value: Estimate | Difference) -> str:
    """Mean ± half of the interval, where there is one."""
    return number(value.mean) + ("" if math.isnan(value.low) else f" ± {value.half:.3f}")


def signed(value: Difference) -> str:
    """As `plus_minus`, with a sign."""
    text = plus_minus(value)
    return text if math.isnan(value.mean) else f"{'+' if value.mean >= 0 else ''}{text}"


def p_value(value: float) -> str:
    """Three decimals, and what lies below them."""
    return "< .001" if value < 0.001 else number(value)
