"""Writes a comparison: Markdown, CSV, PNG and one HTML page."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from polyqwen.atomic_files import write_text
from polyqwen.report.comparison.board import Board
from polyqwen.report.comparison.captions import Words
from polyqwen.report.comparison.claims import Tested
from polyqwen.report.comparison.csv_files import write_csv, write_runs
from polyqwen.report.comparison.figures import bars, trade_off
from polyqwen.report.comparison.page import render_page
from polyqwen.report.comparison.tables import (
    board_lines,
    claim_lines,
    gain_lines,
    markdown_table,
)
from polyqwen.report.comparison.weights import weight_panels
from polyqwen.report.figure_style import figure_style, save
from polyqwen.runs.run_folder import RunFolder

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Variants = Mapping[str, Sequence[RunFolder]]


def write_comparison(
    board: Board, variants: Variants, claims: Sequence[Tested], words: Words, out: Path
) -> list[Path]:
    """Writes ``leaderboard.{html,md,csv}``, ``runs.csv`` and the figures as PNG.

    Returns:
        The files, the page first.
    """
    figures = _figures(board, variants)
    page, text, table, runs = (
        out / name for name in ("leaderboard.html", "leaderboard.md", "leaderboard.csv", "runs.csv")
    )
    drawn = {name: (figure, caption) for name, (_, figure, caption) in figures.items()}
    write_text(page, render_page(board, variants, claims, drawn, words))
    write_text(text, _markdown(board, claims, figures, words))
    write_csv(board, table)
    write_runs(variants, board.tasks, runs)
    with figure_style():
        pictures = [save(figure, out / file) for file, figure, _ in figures.values()]
    return [page, text, table, runs, *pictures]


def _figures(board: Board, variants: Variants) -> dict[str, tuple[str, "Figure", str]]:
    """Heading -> name of the file, figure, caption."""
    figures = {"Score and tasks": ("bars.png", bars(board), "The baseline is the dark bar.")}
    trades = trade_off(board)
    if trades is not None:
        figures["Trade-offs"] = (
            "trade_off.png",
            trades,
            "Numbers are ranks by score. Between tasks up and to the right is better, between cost "
            "and score up and to the left.",
        )
    ordered = {row.name: variants[row.name] for row in board.rows}
    weights = weight_panels(ordered, board.tasks)
    if weights is not None:
        figures["Task weights over time"] = (
            "weights.png",
            weights,
            "As applied, λ · boost; a line per task and seed, the best variant first.",
        )
    return figures


def _markdown(
    board: Board,
    claims: Sequence[Tested],
    figures: Mapping[str, tuple[str, "Figure", str]],
    words: Words,
) -> str:
    parts = [f"# {words.title}", words.lead]
    parts += [f"> {warning}" for warning in words.warnings]
    parts += ["## Leaderboard", markdown_table(*board_lines(board))]
    if claims:
        parts += ["## Claims", markdown_table(*claim_lines(claims))]
    parts += ["## Per task, against the baseline", markdown_table(*gain_lines(board))]
    for heading, (file, _, caption) in figures.items():
        parts += [f"## {heading}", caption, f"![{heading}]({file})"]
    parts += ["## How to read this", "\n".join(f"- {note}" for note in words.notes)]
    settings = [f"- `{name}`: `{text or 'the defaults'}`" for name, text in words.settings.items()]
    parts += ["## Variants", "\n".join(settings)]
    return "\n\n".join(part.strip() for part in parts) + "\n"
