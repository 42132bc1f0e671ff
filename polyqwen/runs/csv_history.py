"""The numbers of a run that goes on: those from before come along."""

import csv
import io
from pathlib import Path

from lightning.pytorch.loggers import CSVLogger

from polyqwen.atomic_files import write_text

METRICS = "metrics.csv"


def carry_over(logger: CSVLogger, earlier: Path, step: int) -> None:
    """Puts the rows up to ``step`` of an earlier ``metrics.csv`` before those to come.

    Lightning empties the file of a folder that is logged to again. Call this before anything is
    logged; a validation that is made up for has its row a second time.
    """
    if not earlier.is_file():
        return
    with earlier.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        rows = [row for row in reader if _step(row) <= step]
        keys = list(reader.fieldnames or [])
    writer = logger.experiment  # this is what empties the folder
    if not keys:
        return
    text = io.StringIO(newline="")
    table = csv.DictWriter(text, fieldnames=keys)
    table.writeheader()
    table.writerows(rows)
    write_text(Path(writer.metrics_file_path), text.getvalue())
    writer.metrics_keys = keys


def _step(row: dict[str, str]) -> float:
    try:
        return float(row["step"])
    except (KeyError, TypeError, ValueError):  # a row that a kill cut off
        return float("inf")
