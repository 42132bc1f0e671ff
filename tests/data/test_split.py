"""`split`: every row once, equal values on one side, in every file the same one."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from polyqwen.app.commands.split import SPLITS, split


def written(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def read(folder: Path) -> dict[str, list[dict[str, Any]]]:
    files = {name: folder / f"{name}.jsonl" for name in SPLITS}
    return {name: list(map(json.loads, file.open())) for name, file in files.items()}


def test_rows_of_a_picture_stay_together_in_all_files(tmp_path: Path) -> None:
    texts = [{"scan": f"{i}.png", "text": f"text {i}"} for i in range(200)]
    asked = [{"scan": f"{i % 200}.png", "ask": f"{i}?"} for i in range(700, 100, -1)]
    counts = split(written(tmp_path / "a.jsonl", texts), tmp_path / "a", "scan")
    split(written(tmp_path / "b.jsonl", asked), tmp_path / "b", "scan")
    sides = [read(tmp_path / name) for name in "ab"]
    for given, found in zip((texts, asked), sides, strict=True):
        back = Counter(json.dumps(row) for rows in found.values() for row in rows)
        assert back == Counter(map(json.dumps, given))
    pictures = {n: {row["scan"] for side in sides for row in side[n]} for n in SPLITS}
    assert sum(map(len, pictures.values())) == 200  # no picture on two sides
    assert 0.7 < counts["train"] / 200 < 0.9 and min(counts.values()) >= 10


@pytest.mark.parametrize(
    ("rows", "together", "shares", "words"),
    [
        ([{"a": 1}], None, (0.8, 0.1, 0.1), "too small to split"),
        ([{"a": 1}], "b", (0.8, 0.1, 0.1), "no column 'b', but a"),
        ([{"a": 1}], None, (1, 0, 0), "must be above 0"),
    ],
)
def test_what_is_refused(
    rows: list[dict[str, Any]], together: str, shares: Any, words: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=words):
        split(written(tmp_path / "a.jsonl", rows), tmp_path / "to", together, shares)
    assert not (tmp_path / "to").exists()


def test_splits_are_not_overwritten(tmp_path: Path) -> None:
    rows = written(tmp_path / "a.jsonl", [{"a": i} for i in range(100)])
    split(rows, tmp_path / "to")
    before = read(tmp_path / "to")
    with pytest.raises(ValueError, match="has splits already"):
        split(rows, tmp_path / "to")
    assert read(tmp_path / "to") == before
