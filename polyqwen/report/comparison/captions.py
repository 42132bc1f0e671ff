"""What a comparison says beside its numbers."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from polyqwen.report.comparison.board import Board


class Words(NamedTuple):
    """Texts of a comparison.

    Attributes:
        title: of the page.
        lead: one paragraph: what is compared.
        warnings: runs that do not count, and why.
        notes: how the numbers are made.
        settings: variant -> the overrides that make it.
    """

    title: str
    lead: str
    warnings: Sequence[str]
    notes: Sequence[str]
    settings: Mapping[str, str]


def lead_of(board: Board, runs: int) -> str:
    """What is compared, in one paragraph."""
    seeds = sorted({seed for row in board.rows for seed in row.seeds})
    named = ", ".join(map(str, seeds[:6])) + (", …" if len(seeds) > 6 else "")
    tasks = ", ".join(f"{task} ({metric})" for task, metric in board.metrics.items())
    return (
        f"{len(board.rows)} variants, {runs} finished runs, seeds {named}. Baseline: "
        f"{board.baseline}. Test split; the score is the mean of {tasks}."
    )


def notes_of(board: Board, jobs: int | None) -> list[str]:
    """How the numbers are made, and how far they go.

    Args:
        board: the comparison.
        jobs: runs that shared the machine, if known.
    """
    shared = f"{jobs} of these runs at a time shared" if jobs and jobs > 1 else "Runs that shared"
    most = max(len(row.seeds) for row in board.rows)
    few = f"Seeds per variant: {most}. Intervals are wide, and a large p does not show equality."
    return [
        "± is the half width of a 95 % t interval over seeds (Student, 1908): it covers the "
        "choice of the seed, not that of the data. With one seed there is none.",
        f"Δ score is the mean of the differences to {board.baseline} at the same seeds; p is that "
        "of the paired two-sided t-test, adjusted for all variants (Holm, 1979). The table per "
        "task is adjusted for all variants and tasks.",
        "Δ % is the mean over tasks of the relative change of the main metric, higher is better "
        "(Maninis et al., 2019, arXiv:1904.08918).",
        "ms/step is the median time inside training batches, without loading and validation; "
        "cost is its ratio to the baseline's; fit is the wall-clock of training with validation. "
        f"{shared} a machine: their timings are not comparable beyond that, and other work on it "
        "shows in them too.",
        "Untrained is the same model before its first step, chance a random order; both are means "
        "over all runs that measured them.",
        *([few] if most < 5 else []),
    ]
