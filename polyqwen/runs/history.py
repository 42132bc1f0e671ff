"""A run's logged numbers: Lightning's ``metrics.csv``, many columns and mostly empty cells."""

import csv
import io
import math
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from polyqwen.atomic_files import write_text

if TYPE_CHECKING:
    from lightning.pytorch.loggers import CSVLogger

METRICS = "metrics.csv"  # of a CSVLogger, in its folder


class Series(NamedTuple):
    """One logged value over optimizer steps; NaN stays, empty cells are gone."""

    steps: list[int]
    values: list[float]


def read_history(csv_path: Path) -> dict[str, Series]:
    """All logged series by key.

    Lightning appends ``_step`` or ``_epoch`` to what is logged at both; the former keeps the plain
    name, the latter is dropped when the former exists.

    Raises:
        ValueError: the file has no ``step`` column.
    """
    with Path(csv_path).open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        if "step" not in (reader.fieldnames or ()):
            raise ValueError(f"{csv_path} has no column 'step'; give a CSVLogger's metrics.csv")
        history: dict[str, Series] = {}
        for row in reader:
            for key, cell in row.items():
                if cell and row["step"] and key not in ("step", "epoch"):
                    series = history.setdefault(key, Series([], []))
                    series.steps.append(int(float(row["step"])))
                    series.values.append(float(cell))
    return _plain_names(history)


def _plain_names(history: dict[str, Series]) -> dict[str, Series]:
    plain = {}
    for key, series in history.items():
        name = key.removesuffix("_step")
        if f"{name}_epoch" in history:
            plain[name] = series
        elif f"{key.removesuffix('_epoch')}_step" not in history:
            plain[key] = series
    return plain


def by_task(history: dict[str, Series], prefix: str) -> dict[str, Series]:
    """Series named ``<prefix>/<task>`` by task; deeper keys, a loss's components, are left out."""
    start = prefix + "/"
    names = {key.removeprefix(start): key for key in history if key.startswith(start)}
    return {name: history[key] for name, key in names.items() if "/" not in name}


def by_metric(history: dict[str, Series], prefix: str) -> dict[str, dict[str, Series]]:
    """Series named ``<prefix>/<task>/<metric>`` by metric, then task."""
    metrics: dict[str, dict[str, Series]] = {}
    for key, series in history.items():
        parts = key.split("/")
        if len(parts) == 3 and parts[0] == prefix:
            metrics.setdefault(parts[2], {})[parts[1]] = series
    return metrics


def smooth(values: list[float], span: int) -> list[float]:
    """Exponential moving average without a start-up bias; NaN values are skipped.

    m_n = Σ_i (1 − a)^(n−i) x_i / Σ_i (1 − a)^(n−i), with a = 2 / (span + 1).
    """
    keep = 1 - 2 / (span + 1)
    total = weight = 0.0
    averages = []
    for value in values:
        if not math.isnan(value):
            total, weight = keep * total + value, keep * weight + 1
        averages.append(total / weight if weight else math.nan)
    return averages


def carry_over(logger: "CSVLogger", earlier: Path, step: int) -> None:
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
