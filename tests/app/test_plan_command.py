"""``polyqwen plan``: what a run will do, told without one, also of data and models elsewhere."""

import io
import json
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from polyqwen.app.commands.plan import planned
from polyqwen.config.errors import ConfigError
from polyqwen.report.plan import print_plan
from tests.conftest import ROOT

PAPER = ("text_pair=3_500_000", "ocr=1500000", "vqa_single=1500000", "vqa_multi=1000000")


def plan(*arguments: str, status: int = 0) -> str:
    command = [sys.executable, "-m", "polyqwen", "plan", *arguments]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == status, ended.stdout + ended.stderr
    return ended.stdout + ended.stderr


def test_the_command_prints_tables_and_warnings_and_writes_what_a_run_keeps(
    folder: Path, tmp_path: Path
) -> None:
    file = tmp_path / "plan.json"
    text = plan(
        *("data=folder", f"data.root={folder}", "data.rows_per_task=4", "data.batch_size=null"),
        *(f"data_cache={tmp_path / 'cache'}", "--json", str(file)),
    )
    for word in ("Phases", "Data", "Schedules", "Parameters", "Optimizer groups", "Memory of a"):
        assert word in text
    assert "warning: fewer than 8 negatives a row: in phase" in text
    values = json.loads(file.read_text())
    assert [task["train"] for task in values["tasks"]] == [64] * 4
    assert all(warning["text"] in text for warning in values["warnings"])
    assert not (tmp_path / "cache").exists()


def test_the_paper_is_planned_without_its_data_and_its_backbone() -> None:
    values = planned(["experiment=vipolyqwen"])
    assert {task["train"] for task in values["tasks"]} == {None}
    assert any("not given is not a folder" in note for note in values["notes"])
    assert any("Qwen2-VL-2B-Instruct" in note for note in values["notes"])
    values = planned(["experiment=vipolyqwen"], PAPER)
    assert [task["train"] for task in values["tasks"]][:2] == [3_500_000, 1_500_000]


@pytest.mark.parametrize("page", ["README.md", "docs/plan.md"])
def test_the_documents_show_what_it_says(page: str) -> None:
    out = Console(width=100, file=io.StringIO())
    print_plan(planned(["experiment=vipolyqwen"], PAPER), out)
    assert isinstance(out.file, io.StringIO)
    printed = [line.rstrip() for line in out.file.getvalue().splitlines()]
    begin = next(i for i, line in enumerate(printed) if line.startswith("phase "))
    shown = "\n".join(f"    {line}" for line in printed[begin : begin + 7])
    assert "vqa_multi" in shown and shown in (ROOT / page).read_text(encoding="utf-8")
    if page == "docs/plan.md":
        assert all(line in (ROOT / page).read_text("utf-8") for line in printed if "warn" in line)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (["ocr=5"], "the tasks are text_pair, ocr"),
        (["ocr"], "is not TASK=ROWS"),
        (["ocr=0"], "rows >= 1"),
    ],
)
def test_rows_that_cannot_be_are_refused(rows: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        planned([], rows)


def test_a_configuration_that_cannot_be_run_is_one_line() -> None:
    text = plan("weighting=stwx", status=2)
    assert text.startswith("error: weighting=stwx: there is no such file") and text.count("\n") == 1
    text = plan("--rows", "text_pair=20", "ocr=20", "vqa_single=20", "vqa_multi=20", status=1)
    assert text.startswith("error: a step takes 32 rows of task 'text_pair', which has 20")
