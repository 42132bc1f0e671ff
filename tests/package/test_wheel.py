"""The installed package: whole, usable from any folder, and as strict as the checkout."""

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.package.conftest import Run, Wheel

TINY = [
    *("task=[text_pair]", "model=tiny_text", "curriculum=single_phase", "curriculum.total_steps=2"),
    *("validate_every=1", "data.source.train_rows=64", "data.source.eval_rows=16"),
    *("ablations=[]", "data.rows_per_task=8", "hydra.run.dir=run", "callbacks.projector=null"),
]
EVIL = "# @package _global_\ntrainer:\n  _target_: os.system\n"


def test_every_file_of_the_package_and_of_conf_is_in_it(wheel: Wheel) -> None:
    names = {name for name in zipfile.ZipFile(wheel.file).namelist() if ".dist-info/" not in name}
    files = [p for p in (ROOT / "polyqwen").rglob("*") if p.is_file()]
    ours = {str(p.relative_to(ROOT)) for p in files if "__pycache__" not in p.parts}
    ours |= {f"polyqwen/{p.relative_to(ROOT)}" for p in (ROOT / "conf").rglob("*.yaml")}
    assert names == ours
    assert {"polyqwen/py.typed", "polyqwen/conf/train.yaml"} < names


def test_help_lists_all_commands(installed: Run) -> None:
    result = installed("polyqwen", "--help")
    assert result.returncode == 0 and result.stdout.startswith("usage: polyqwen ")
    for name in ("train", "evaluate", "new-task", "validate", "export", "compare"):
        assert f"\n    {name} " in result.stdout


def test_the_configuration_is_that_of_the_checkout(installed: Run) -> None:
    ours = subprocess.run(
        [sys.executable, "train.py", "--cfg", "job"], cwd=ROOT, capture_output=True, text=True
    )
    theirs = installed("polyqwen", "train", "--cfg", "job")
    assert theirs.returncode == 0 and len(theirs.stdout) > 5000
    assert theirs.stdout == ours.stdout


def test_a_run_trains_and_is_evaluated(installed: Run, tmp_path: Path) -> None:
    result = installed("polyqwen", "train", *TINY)
    assert result.returncode == 0, result.stdout + result.stderr
    run = tmp_path / "empty" / "run"
    results = json.loads((run / "results.json").read_text())
    assert results["timing"]["steps"] == 2 and "text_pair" in results["trained"]
    assert (run / "train.log").is_file() and (run / "report.html").is_file()
    result = installed("-m", "polyqwen", "evaluate", "run_dir=run", "ablations=[]")
    assert result.returncode == 0, result.stdout + result.stderr
    assert (run / "evaluation" / "metrics.json").is_file()


def test_a_typo_is_refused_in_one_line(installed: Run) -> None:
    result = installed("polyqwen", "train", "weigthing.eval_steps=3")
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr == "error: weigthing: unknown key; did you mean 'weighting'?\n"


def test_a_new_task_lies_in_the_working_folder_and_is_found(installed: Run, tmp_path: Path) -> None:
    result = installed("polyqwen", "new-task", "my_pairs")
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "empty" / "conf" / "task" / "my_pairs.yaml").is_file()
    assert "  train   polyqwen train experiment=own_data" in result.stdout
    result = installed("polyqwen", "train", "task=[my_pairs]", "--cfg", "job")
    assert result.returncode == 0 and "prefix: <my_pairs>" in result.stdout
    result = installed("polyqwen", "train", "task=[my_pears]")
    assert result.returncode == 2 and "my_pairs" in result.stderr
    result = installed("polyqwen", "new-task", "ocr")
    assert result.returncode == 1 and "is there already" in result.stderr


@pytest.mark.parametrize(
    ("file", "text", "words"),
    [
        ("experiment/evil.yaml", EVIL, "os.system is not allowed"),
        ("trainer/default.yaml", "_target_: os.system\n", "os.system is not allowed"),
        ("train.yaml", "defaults: [_self_]\nfoo: 1\n", "foo: unknown key"),
        ("train.yaml", "hydra: {searchpath: ['pkg://evil']}\n", "hydra.searchpath: may not be set"),
        ("train.yaml", "a: [\n", "is not YAML"),
        ("hydra/launcher/evil.yaml", "_target_: os.system\n", "os.system is not allowed"),
    ],
)
def test_files_of_the_working_folder_are_checked(
    installed: Run, tmp_path: Path, file: str, text: str, words: str
) -> None:
    path = tmp_path / "empty" / "conf" / file
    path.parent.mkdir(parents=True)
    path.write_text(text)
    evil = tmp_path / "empty" / "evil"
    evil.mkdir()
    (evil / "__init__.py").write_text("raise SystemExit('run')\n")
    chosen = [f"{Path(file).parent}=evil"] if "evil" in file else []
    for command in (["polyqwen", "train"], ["-m", "polyqwen", "train"]):
        result = installed(*command, *chosen)
        assert result.returncode == 2, result.stdout + result.stderr
        assert words in result.stderr and result.stderr.count("\n") == 1


def test_an_own_file_hides_the_packages_and_is_named(installed: Run, tmp_path: Path) -> None:
    path = tmp_path / "empty" / "conf" / "experiment" / "short.yaml"
    path.parent.mkdir(parents=True)
    path.write_text("# @package _global_\nweighting:\n  eval_steps: often\n")
    result = installed("polyqwen", "train", "experiment=short")
    assert result.returncode == 2
    assert "weighting.eval_steps" in result.stderr
    assert "(set in experiment/short.yaml)" in result.stderr
