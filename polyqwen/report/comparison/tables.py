"""The board as lines of text: for the terminal, Markdown and the page."""

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from polyqwen.metrics.paired import Difference, Estimate
from polyqwen.report.comparison.axes import Axis
from polyqwen.report.comparison.board import Board, Reference, Variant
from polyqwen.report.comparison.claims import Tested
from polyqwen.report.format_values import number
from polyqwen.report.results_table import ALL_HEADINGS

if TYPE_CHECKING:
    from rich.table import Table

LONGEST = 60  # characters of the values of an axis


class Column(NamedTuple):
    """A column of the leaderboard.

    Attributes:
        title: its heading.
        text: of a row's cell.
        key: by which rows are sorted.
        reference: text of the cell of the untrained model and of chance.
    """

    title: str
    text: Callable[[Variant], str]
    key: Callable[[Variant], float | str]
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


def _difference(board: Board) -> Callable[[Variant], str]:
    return lambda r: "baseline" if r.name == board.baseline else signed(r.difference)


def _gain(board: Board) -> Callable[[Variant], str]:
    return lambda r: "" if r.name == board.baseline else number(r.gain, 1, sign=True)


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


def board_lines(board: Board) -> tuple[list[str], list[list[str]]]:
    """Headings and cells, the references last."""
    cells = columns(board)
    lines = [[c.text(row) for c in cells] for row in board.rows]
    for name, reference in (("(untrained)", board.untrained), ("(chance)", board.chance)):
        lines.append([name, *(c.reference(reference) for c in cells[1:])])
    return [c.title for c in cells], lines


def gain_lines(board: Board) -> tuple[list[str], list[list[str]]]:
    """Per task: Δ %, the paired difference, and its adjusted p value."""
    headings = ["variant", "mean Δ %", *board.tasks]
    lines = [
        [
            row.name,
            number(row.gain, 1, sign=True),
            *(
                f"{number(row.gains[t], 1, ' %', sign=True)} ({signed(row.task_differences[t])}, "
                f"p {p_value(row.task_p[t])})"
                for t in board.tasks
            ),
        ]
        for row in board.rows
        if row.name != board.baseline
    ]
    return headings, lines


def claim_lines(claims: Sequence[Tested]) -> tuple[list[str], list[list[str]]]:
    """One line per claim."""
    headings = ["claim", "verdict", "metric", "with", "without", "difference", "p"]
    return headings, [
        [
            f"{t.claim.text} ({t.claim.treated} against {t.claim.control or '0'})",
            t.verdict,
            " against ".join(filter(None, [t.claim.metric, t.claim.control_metric])),
            plus_minus(t.treated),
            plus_minus(t.control),
            signed(t.difference),
            p_value(t.p),
        ]
        for t in claims
    ]


def axis_lines(axes: Sequence[Axis]) -> tuple[list[str], list[list[str]]]:
    """One line per axis: the largest effect of its values, beside the noise of the seed."""
    numbers = ["effect", "highest, lowest", "seed SD", "p", "runs", "seeds"]
    return ["key", "values", "verdict", *numbers], [_axis_line(axis) for axis in axes]


def _axis_line(axis: Axis) -> list[str]:
    values = ", ".join(axis.levels)
    shown = values if len(values) <= LONGEST else f"{values[: LONGEST - 1]}…"
    found, measured = axis.score, [""] * 5
    if found is not None:
        ends = "" if axis.inert else f"{found.highest}, {found.lowest}"
        measured = [signed(found.difference), ends, number(found.seed_sd), p_value(axis.p)]
        measured.append(str(found.difference.n))
    return [axis.key, shown, axis.verdict, *measured, str(axis.seeds)]


def axis_sentences(axes: Sequence[Axis]) -> list[str]:
    """One line per axis for the terminal."""
    lines = []
    for axis in axes:
        size = ""
        if axis.score is not None and not axis.inert:
            size = f"{signed(axis.score.difference)}"
            size += f" ({axis.score.highest} against {axis.score.lowest})"
            size += "" if math.isnan(axis.p) else f", p {p_value(axis.p)}"
        lines.append(": ".join(filter(None, [axis.key, size, axis.verdict])))
    return lines


def terminal_table(board: Board) -> "Table":
    """The leaderboard within 120 columns: intervals of the tasks are left to the files."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    shown = [c for c in columns(board) if c.title not in ("untrained", "fit, s", "rank")]
    tasks = [c.title.rpartition(" ")[0] in board.tasks for c in shown]
    for i, (column, is_task) in enumerate(zip(shown, tasks, strict=True)):
        heading = column.title.replace("_", "\n").replace(" ", "\n") if is_task else column.title
        widest = None if i else 26
        table.add_column(heading, justify="right" if i else "left", no_wrap=True, max_width=widest)
    for row in board.rows:
        cells = [c.text(row) for c in shown]
        cells = [c.partition(" ±")[0] if t else c for c, t in zip(cells, tasks, strict=True)]
        table.add_row(*cells, style="bold" if row.name == board.baseline else None)
    for name, reference in (("(untrained)", board.untrained), ("(chance)", board.chance)):
        table.add_row(name, *(c.reference(reference) for c in shown[1:]), style="dim")
    return table
