"""What a look through a data set found, as tables and lines and as JSON."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from polyqwen.atomic_files import write_json
from polyqwen.data.validation.findings import Finding, Scans

HEADINGS = {"stops": "A run would stop", "warning": "Warnings", "note": "Notes"}
SIDES = ("query tokens", "cut", "document tokens", "cut")
COLUMNS = ("task", "split", "rows", "bad", "twice", "pictures", *SIDES, "scores 0–1")
LEFT = ("task", "split", "scores 0–1")
MOST = 12  # labels, and classes of a label, that are printed

Tasks = Mapping[str, Scans]  # task -> split -> what it holds


def verdict_of(found: Sequence[Finding]) -> str:
    """The end of it, in one line."""
    stops = sum(finding.level == "stops" for finding in found)
    warnings = sum(finding.level == "warning" for finding in found)
    if stops:
        return f"A run would stop: {stops} findings"
    return "A run could start" + (f"; {warnings} warnings" if warnings else "")


def print_validation(tasks: Tasks, found: Sequence[Finding], out: Console) -> None:
    """A table of all splits, the classes of their labels, then what there is to tell."""
    out.print(_table(tasks))
    out.print("tokens: median / 95 % / longest\n", style="dim")
    for name, splits in tasks.items():
        for split, scan in splits.items():
            for label, classes in list(scan.classes.report().items())[:MOST]:
                shown = ", ".join(f"{c} {n:,}" for c, n in list(classes.items())[:MOST])
                out.print(f"{name} {split}, {label}: {shown}", markup=False, highlight=False)
    for level, heading in HEADINGS.items():
        lines = [str(finding) for finding in found if finding.level == level]
        if lines:
            out.print(f"\n[bold]{heading}[/bold]")
        for line in lines:
            text = " ".join(line.split())
            out.print(f"  {text}", markup=False, highlight=False, soft_wrap=True)
    out.print(f"\n[bold]{verdict_of(found)}[/bold]")


def _table(tasks: Tasks) -> Table:
    table = Table(box=None, header_style="bold")
    for column in COLUMNS:
        table.add_column(column, justify="left" if column in LEFT else "right")
    for name, splits in tasks.items():
        for split, scan in splits.items():
            counts = (scan.rows, scan.faults.kinds.total(), scan.pairs.repeated().rows)
            numbers = [f"{n:,}" for n in (*counts, scan.shown.distinct)]
            sides = []
            for lengths in scan.lengths.values():
                quantiles = [lengths.quantile(share) for share in (0.5, 0.95, 1.0)]
                sides += [" / ".join(map(str, quantiles)), f"{lengths.cut:.1%}"]
            bars = scan.scores.bars() if scan.scores.report() else ""
            table.add_row(name, split, *numbers, *sides, bars)
    return table


def write_validation(path: Path, tasks: Tasks, found: Sequence[Finding]) -> None:
    """The same as JSON, with the first places of every kind of fault and whole histograms."""
    content = {
        "verdict": verdict_of(found),
        "findings": [finding._asdict() for finding in found],
        "tasks": {
            name: {split: scan.report() for split, scan in splits.items()}
            for name, splits in tasks.items()
        },
    }
    write_json(path, content)
