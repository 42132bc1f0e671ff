"""Make a leaderboard of finished runs."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from polyqwen.report.comparison.board import Board


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The runs, the variant to compare with and the folder to write."""
    parser.add_argument(
        "folders", type=Path, nargs="+", help="folders of runs, of a sweep or of a study"
    )
    parser.add_argument("--baseline", help="variant to compare with")
    parser.add_argument("--to", type=Path, help="folder to write; default: FOLDER/leaderboard")


def run(arguments: argparse.Namespace) -> None:
    """Writes the leaderboard and prints it."""
    compare(arguments.folders, arguments.baseline, arguments.to)


def compare(paths: Sequence[Path], baseline: str | None = None, out: Path | None = None) -> "Board":
    """Writes the leaderboard of all runs found and prints it.

    Args:
        paths: folders of runs, of sweeps or of studies.
        baseline: variant to compare with; None takes the study's, else the first.
        out: folder to write; None: ``leaderboard`` in the only path, or here.

    Raises:
        ValueError: as `gather`.
    """
    from polyqwen.app.console import console
    from polyqwen.report.comparison.gather import gather
    from polyqwen.report.comparison.tables import axis_sentences, claim_lines, terminal_table
    from polyqwen.report.comparison.write import write_comparison

    found = gather(paths, baseline)
    out = out or (paths[0] if len(paths) == 1 else Path()) / "leaderboard"
    files = write_comparison(found, out)
    terminal = console()
    terminal.print(found.words.title, style="bold", highlight=False)
    terminal.print(found.words.lead, highlight=False)
    terminal.print(terminal_table(found.board))
    for cells in claim_lines(found.claims)[1]:
        text = f"{cells[1]}: {cells[0]}; {cells[2]} {cells[5]}, p {cells[6]}"
        terminal.print(text, highlight=False)
    for line in axis_sentences(found.axes):
        terminal.print(line, highlight=False)
    for warning in found.words.warnings:
        terminal.print(f"note: {warning}", highlight=False)
    terminal.print(f"written to {files[0].parent}; open {files[0]}", highlight=False)
    return found.board
