"""Which losses were chosen when and why: read back from a run's log."""

import csv
import sys
from pathlib import Path

import pytest

from polyqwen.__main__ import main
from polyqwen.report.loss_choices import choices_table, read_choices, write_choices
from polyqwen.weighting.weight_update import scalars
from tests.weighting.test_lossrag import rag, told


def logged(path: Path, rows: list[dict[str, float]]) -> Path:
    keys = ["step", *sorted({key for row in rows for key in row if key != "step"})]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, keys)
        writer.writeheader()
        writer.writerows(rows)
    return path


def run_with_a_turn(path: Path) -> Path:
    """A loss that harms until update 80, then helps."""
    weighting, rows = rag(retest_every=10), []
    for step in range(160):
        update = told(weighting, step, harm=1.0 if step < 80 else -1.0)
        rows.append({"step": float(2 * step), **scalars(update)})
    return logged(path, rows)


def test_table_by_hand(tmp_path: Path) -> None:
    share, agreement, active = "weighting/share/", "weighting/agreement/", "weighting/active/"
    rows: list[dict[str, float]] = [
        {
            "step": 0,
            share + "a": 0.5,
            share + "b": 0.5,
            agreement + "a": 0.6,
            agreement + "b": -0.2,
        },
        {
            "step": 2,
            share + "a": 0.9,
            share + "b": 0.1,
            agreement + "a": 0.8,
            agreement + "b": -0.4,
        },
        {
            "step": 4,
            share + "a": 1.0,
            share + "b": 0.0,
            agreement + "a": 1.0,
            agreement + "b": -0.6,
        },
    ]
    for row, on in zip(rows, (1.0, 1.0, 0.0), strict=True):
        row[active + "b"] = on
    rows[1] |= {"weighting/evidence/b": -0.3, "weighting/evidence_error/b": 0.1}
    table = choices_table(read_choices(logged(tmp_path / "metrics.csv", rows)))
    assert table.splitlines()[2:] == [
        "| a | 50 % | 80 % | 100 % | 100 % | +0.80 | 0 % | "
        "more than an equal share; agreement ranks 1 of 2 |",
        "| b | 50 % | 20 % | 0 % | 67 % | -0.40 | 33 % | "
        "agreement ranks 2 of 2, not positive; off for a while |",
        "",
        "| Step | Loss | Switched | Evidence |",
        "|--:|:--|:--|:--|",
        "| 4 | b | off | mean agreement -0.300 ± 0.164 |",
    ]


def test_a_run_of_lossrag_tells_its_story(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    metrics = run_with_a_turn(tmp_path / "metrics.csv")
    argv = ["polyqwen", "choices", str(metrics), "--to", str(tmp_path / "out")]
    monkeypatch.setattr(sys, "argv", argv)
    main()
    picture, table = (tmp_path / "out" / name for name in ("choices.png", "choices.md"))
    assert capsys.readouterr().out.split() == [str(picture), str(table)]
    assert picture.read_bytes()[:4] == b"\x89PNG" and picture.stat().st_size > 10_000
    lines = table.read_text(encoding="utf-8").splitlines()
    switches = [line.split(" | ") for line in lines if "| harm | o" in line]
    assert [cells[2] for cells in switches] == ["off", "on again"]
    assert "mean agreement -0." in switches[0][3] and "mean agreement +0." in switches[1][3]
    assert int(switches[0][0].strip("| ")) < 60 and 160 < int(switches[1][0].strip("| ")) < 260


def test_a_run_that_chose_nothing_is_refused(tmp_path: Path) -> None:
    metrics = logged(tmp_path / "metrics.csv", [{"step": 1.0, "weight/a": 1.0}])
    with pytest.raises(ValueError, match="has no weighting/share"):
        write_choices(metrics, tmp_path)
