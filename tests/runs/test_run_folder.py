"""A run's folder as reports and comparisons read it: whole, unfinished, damaged, from elsewhere."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from omegaconf import OmegaConf

from polyqwen.runs.find import find_runs
from polyqwen.runs.run_folder import NOT_BEGUN, RunFolder
from polyqwen.runs.variants import group_runs
from tests.conftest import ROOT, Configure

CURRICULUM = {
    "_target_": "polyqwen.data.curriculum.two_phase",  # as older versions saved it
    "total_steps": 10,
    "switch_step": 4,
    "foundation": ["a"],
}


def write(folder: Path, results: Any = None, **settings: Any) -> RunFolder:
    """The files of a run; of one that has not ended without results."""
    folder.mkdir(parents=True)
    values = {"seed": 3, "run_dir": str(folder), "tasks": {"a": {"share": 2.0}, "b": {}}}
    (folder / "config.yaml").write_text(yaml.safe_dump(values | settings))
    if results is not None:
        (folder / "results.json").write_text(json.dumps(results))
    return RunFolder(folder)


def test_a_folder_without_files_is_empty(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "main" / "1")
    assert run.name == "main/1" and run.problem == NOT_BEGUN and not run.finished
    assert run.results == run.history == run.galleries == run.evaluation == run.environment == {}
    assert run.overrides == run.updates == run.warnings == run.checkpoints == []
    assert run.last("val/score") is None and run.tested_tasks == [] and run.timing == {}
    with pytest.raises(ValueError, match=r"1 is not the folder of a run: it has no config\.yaml"):
        _ = run.settings


def test_what_a_comparison_needs_is_named_when_it_is_not_there(tmp_path: Path) -> None:
    trained = {"trained": {"a": {"recall@1": 0.5}}}
    assert write(tmp_path / "going").problem == "no results.json: interrupted or still running"
    assert write(tmp_path / "whole", trained).problem == ""
    assert RunFolder(tmp_path / "going", note="exit status 1").problem == "exit status 1"
    for name, results, problem in (
        ("no_test", {}, "its files are damaged: 'trained'"),
        ("list", [], "its files are damaged: list indices"),
    ):
        assert write(tmp_path / name, results).problem.startswith(problem)
    torn = write(tmp_path / "torn", trained)
    (torn.path / "results.json").write_text('{"trained": {')
    assert torn.problem.startswith("its files are damaged: ") and torn.results == {}
    cut = write(tmp_path / "cut", trained)
    (cut.path / "config.yaml").write_text("{[,")
    assert cut.problem == "its config.yaml is damaged"
    with pytest.raises(ValueError, match="is not the configuration of a run, or is damaged"):
        _ = cut.tasks


def test_every_file_is_read_once(tmp_path: Path) -> None:
    run = write(tmp_path / "run", {"trained": {"a": {"recall@1": 0.5}, "a/x": {"recall@1": 0.1}}})
    assert run.tasks == ["a", "b"] and run.tested_tasks == ["a"] and run.seed == 3
    assert run.settings["tasks.a.share"] == 2.0
    (run.path / "results.json").unlink()
    (run.path / "config.yaml").unlink()
    assert run.measured("trained")["a"] == {"recall@1": 0.5} and run.measured("chance") == {}
    assert run.config["seed"] == 3


@pytest.mark.parametrize("option", sorted(p.stem for p in (ROOT / "conf/curriculum").glob("*")))
def test_every_curriculum_of_the_configuration_is_known(
    configure: Configure, tmp_path: Path, option: str
) -> None:
    cfg = OmegaConf.to_container(configure(f"curriculum={option}"), resolve=True)
    assert isinstance(cfg, dict)
    run = write(tmp_path / "run", tasks=cfg["tasks"], curriculum=cfg["curriculum"])
    assert run.curriculum is not None
    assert run.curriculum.total_steps == cfg["curriculum"]["total_steps"]


def test_a_curriculum_is_made_by_its_name_alone(tmp_path: Path) -> None:
    curriculum = write(tmp_path / "old", curriculum=CURRICULUM).curriculum
    assert curriculum is not None and curriculum.total_steps == 10
    assert RunFolder(tmp_path / "old").switches == [4]
    for i, node in enumerate((None, {}, CURRICULUM | {"_target_": "pathlib.Path.touch"})):
        strange = write(tmp_path / str(i), curriculum=node)
        assert strange.curriculum is None and strange.switches == []


def test_warnings_are_the_last_ones_each_once(tmp_path: Path) -> None:
    run = write(tmp_path / "run")
    lines = [f"10:00:{i:02} WARNING number {i}" for i in range(40)]
    text = "\n".join([*lines, lines[-1], "10:01:00 INFO fine", "2026-01-01 10:00:00 ERROR last"])
    (run.path / "train.log").write_text(text)
    assert len(run.warnings) == 30 and run.warnings[-1].endswith("last")
    assert run.warnings[-2] == lines[-1] and run.warnings[-3] == lines[-2]


def test_studies_and_sweeps_are_found_in_one_folder(tmp_path: Path) -> None:
    trained = {"trained": {"a": {"recall@1": 0.5}}}
    for i in (10, 9):
        write(tmp_path / "sweep" / str(i), trained, seed=i)
    for study in ("one", "two"):
        write(tmp_path / study / "v" / "seed_0", trained)
        planned = {"variant": "v", "seed": 0, "folder": "v/seed_0"}
        later = {"variant": "v", "seed": 1, "folder": "v/seed_1", "error": "exit status 1"}
        manifest = {"name": study, "runs": [planned, later]}
        (tmp_path / study / "study.json").write_text(json.dumps(manifest))
    runs, manifests = find_runs([tmp_path, tmp_path / "one"])
    assert [m["name"] for m in manifests] == ["one", "two", "one"]
    assert [run.path.name for run in runs[:2]] == ["9", "10"]  # job 10 after job 9
    assert {(r.variant, r.seed, r.problem) for r in runs[2:]} == {
        (f"{study}/v", seed, problem)
        for study in ("one", "two")
        for seed, problem in ((0, ""), (1, "exit status 1"))
    }
    variants, notes = group_runs([run for run in runs if not run.problem])
    assert {name: [run.seed for run in own] for name, own in variants.items()} == {
        "all runs": [9, 10],
        "one/v": [0],
        "two/v": [0],
    }
    assert notes == [] and runs[0].variant == "all runs"
