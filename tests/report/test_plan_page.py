"""The plan on the run's page: as it was kept; a run without one, or with another file, has none."""

import json
from pathlib import Path
from typing import Any

import pytest

from polyqwen.build.plan.make import make_plan
from polyqwen.build.plan.types import plain
from polyqwen.report.plan import plan_tables, size_of
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
