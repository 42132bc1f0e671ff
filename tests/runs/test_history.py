"""Logged numbers over a resume, in the same folder and in another one."""

import csv
from pathlib import Path

import pytest
from lightning.pytorch.loggers import CSVLogger

from polyqwen.runs.history import METRICS, carry_over


def steps(folder: Path) -> list[tuple[str, str]]:
    with (folder / METRICS).open(newline="") as file:
        return [(row["step"], row.get("b", "")) for row in csv.DictReader(file)]


@pytest.mark.parametrize("other", [False, True])
def test_earlier_rows_stay(tmp_path: Path, other: bool) -> None:
    first = CSVLogger(tmp_path, name=None, version="csv")
    for step in range(6):
        first.log_metrics({"a": step, "b": 7 * step} if step else {"a": 0}, step=step)
    first.save()
    with (tmp_path / "csv" / METRICS).open("a") as file:
        file.write("3")  # a kill cut it off
    folder = tmp_path / "other" if other else tmp_path
    second = CSVLogger(folder, name=None, version="csv")
    carry_over(second, tmp_path / "csv" / METRICS, step=3)
    second.log_metrics({"c": 1}, step=4)  # a key that is new
    second.log_metrics({"a": 1, "b": 5}, step=5)
    second.save()
    rows = steps(folder / "csv")
    assert rows == [("0", ""), ("1", "7"), ("2", "14"), ("3", "21"), ("4", ""), ("5", "5")]


def test_no_history_is_none(tmp_path: Path) -> None:
    logger = CSVLogger(tmp_path, name=None, version="csv")
    carry_over(logger, tmp_path / "nowhere" / METRICS, step=3)
    logger.log_metrics({"b": 1}, step=0)
    logger.save()
    assert steps(tmp_path / "csv") == [("0", "1")]
