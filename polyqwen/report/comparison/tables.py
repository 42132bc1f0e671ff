"""The board as lines of text: for the terminal, Markdown and the page."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from polyqwen.report.comparison.board import Board
from polyqwen.report.comparison.claims import Tested
from polyqwen.report.comparison.columns import columns, number, p_value, plus_minus, signed

if TYPE_CHECKING:
    from rich.table import Table


def markdown_table(headings: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A table in GitHub's Markdown; numbers to the right, the first column to the left."""
    rule = "|:--|" + "--:|" * (len(headings) - 1)
    rows = [
        "| " + " | ".join(cell.replace("|", r"\|") for cell in line) + " |"
        for line in [headings, *lines]
    ]
    return "\n".join([rows[0], rule, *rows[1:]]) + "\n"


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
