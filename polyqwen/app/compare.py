"""From folders to a leaderboard, on disk and on the terminal."""

from collections.abc import Sequence
from pathlib import Path

from polyqwen.app.console import console
from polyqwen.report.comparison.board import Board
from polyqwen.report.comparison.captions import Words
from polyqwen.report.comparison.claims import Tested
from polyqwen.report.comparison.gather import gather
from polyqwen.report.comparison.tables import claim_lines, terminal_table
from polyqwen.report.comparison.write import write_comparison


def compare(paths: Sequence[Path], baseline: str | None = None, out: Path | None = None) -> Board:
    """Writes the leaderboard of all runs found and prints it.

    Args:
        paths: folders of runs, of sweeps or of studies.
        baseline: variant to compare with; None takes the study's, else the first.
        out: folder to write; None: ``leaderboard`` in the only path, or here.

    Raises:
        ValueError: as `gather`.
    """
    found = gather(paths, baseline)
    out = out or (paths[0] if len(paths) == 1 else Path()) / "leaderboard"
    files = write_comparison(found, out)
    _print(found.board, found.claims, found.words, files)
    return found.board


def _print(board: Board, claims: Sequence[Tested], words: Words, files: Sequence[Path]) -> None:
    terminal = console()
    terminal.print(words.title, style="bold", highlight=False)
    terminal.print(words.lead, highlight=False)
    terminal.print(terminal_table(board))
    for line in claim_lines(claims)[1]:
        terminal.print(f"{line[1]}: {line[0]}; {line[2]} {line[5]}, p {line[6]}", highlight=False)
    for warning in words.warnings:
        terminal.print(f"note: {warning}", highlight=False)
    terminal.print(f"written to {files[0].parent}; open {files[0]}", highlight=False)
