"""The plan on the run's page: as it was kept; a run without one, or with another file, has none."""

import json
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from polyqwen.build.plan.make import make_plan
from polyqwen.build.plan.types import plain
from polyqwen.report.page.charts import Charts
from polyqwen.report.plan import plan_tables, size_of
from polyqwen.report.sections.curriculum import timeline
from polyqwen.report.sections.plan import plan
from polyqwen.runs.run_folder import RunFolder
from tests.conftest import Configure


@pytest.fixture
def values(configure: Configure) -> dict[str, Any]:
    made: dict[str, Any] = plain(make_plan(configure("data.root=/nowhere")))
    return made


def kept(folder: Path, text: str) -> RunFolder:
    (folder / "plan.json").write_text(text)
    return RunFolder(folder)


def test_the_page_shows_what_was_kept(values: dict[str, Any], tmp_path: Path) -> None:
    shown = plan(kept(tmp_path, json.dumps(values)))
    assert shown is not None
    assert [table.title for table in shown["tables"]] == [
        *("Phases", "Data", "Schedules", "Parameters", "Optimizer groups", "Memory of a device")
    ]
    assert shown["warnings"] and shown["notes"]
    for table in shown["tables"]:
        assert {len(line) for line in table.lines} == {len(table.headings)}
        assert all(isinstance(cell, str) for line in table.lines for cell in line)
    phases = shown["tables"][0].lines
    assert phases[0][:4] == ("foundation", "0–300", "text_pair", "4.0")
    assert phases[2][:3] == ("", "", "ocr")
    assert shown["tables"][1].lines[0][1] == "–"  # rows that are not known


def test_the_curve_of_shares_is_that_of_the_plan(configure: Configure, tmp_path: Path) -> None:
    """With rows of their own, tasks do not share a step as the curriculum says."""
    cfg = configure(
        "total_steps=20", "phase1_steps=8", "data.rows_per_task={text_pair: 12, ocr: 4}"
    )
    cfg.data.batch_size = 20  # the two others share what is left
    (tmp_path / "config.yaml").write_text(OmegaConf.to_yaml(cfg, resolve=True))
    charts = Charts({})
    before = timeline(RunFolder(tmp_path), charts)
    values = plain(make_plan(cfg))
    after = timeline(kept(tmp_path, json.dumps(values)), charts)
    assert before is not None and after is not None
    assert before.note.startswith("Target shares") and after.note.startswith("Shares of each")
    ends = [
        {line["name"]: (line["x"][-1], line["y"][-1]) for line in charts.specs[chart.key]["series"]}
        for chart in (before, after)
    ]
    assert ends[0]["ocr"] == (19, 0.2) and ends[1]["ocr"] == (19, 0.2)
    assert ends[0]["text_pair"] == (19, pytest.approx(3.5 / 7.5, abs=1e-4))
    assert ends[1]["text_pair"] == (19, 0.6)


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"phases": 3}', '{"head": {"run": "x"}}'])
def test_a_run_without_a_plan_has_no_such_section(text: str, tmp_path: Path) -> None:
    assert plan(kept(tmp_path, text)) is None
    (tmp_path / "plan.json").unlink()
    assert plan(RunFolder(tmp_path)) is None


def test_what_is_not_known_of_a_model_is_left_out(values: dict[str, Any]) -> None:
    unknown = values | {"parts": [], "groups": [], "memory": None}
    assert [table.title for table in plan_tables(unknown)] == ["Phases", "Data", "Schedules"]


def test_bytes_are_shown_in_a_fitting_unit() -> None:
    assert size_of(5 * 2**20) == "5.0 MB" and size_of(3 * 2**30) == "3.0 GB"
    assert size_of(None) == size_of(float("nan")) == "–"
