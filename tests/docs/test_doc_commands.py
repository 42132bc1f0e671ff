"""Every command of README, docs and examples: it is taken as written, and something runs it."""

import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep

from polyqwen.__main__ import command_line
from polyqwen.config.check import check
from polyqwen.config.hydra_guard import guard_composition
from polyqwen.config.toplevel import CONF, schema_of
from tests.conftest import ROOT
from tests.docs.test_docs import PAGES

DOTS = "…"  # stands for what a reader fills in
OURS = ("python train.py", "python evaluate.py", "python -m polyqwen", "make ")
LINE = re.compile(
    r"(?m)^(?:    |```\w*\n)? *(?:\$ )?((?:make|python|torchrun|srun) (?:.*\\\n)*.*)$"
)
PLUGINS = tuple(f"hydra{sign}{part}" for sign in "/." for part in ("sweeper", "launcher"))
SPAN = re.compile(r"`((?:make|python) [^`]+)`")

# what runs a command: python -m polyqwen COMMAND, make TARGET, or the beginning of another line
RUN_BY = {
    "polyqwen tokenizer": "tests/data/test_tokens.py::"
    "test_the_command_makes_a_tokenizer_from_a_folder",
    "polyqwen compare": "tests/report/test_compare.py::test_mistakes_are_one_line",
    "polyqwen policy": "tests/weighting/test_lossrag_transfer.py::"
    "test_the_command_averages_checkpoints",
    "polyqwen choices": "tests/report/test_choices.py::test_a_run_of_lossrag_tells_its_story",
    "polyqwen validate": "tests/data/test_validate.py::test_the_command_ends_as_it_should",
    "polyqwen plan": "tests/app/test_plan_command.py::"
    "test_the_paper_is_planned_without_its_data_and_its_backbone",
    "polyqwen report": "tests/report/test_report.py::test_a_sweep_has_a_page_with_links",
    "polyqwen doctor": "tests/app/test_doctor.py::test_this_machine_is_ready",
    "polyqwen new-task": "tests/app/test_new_task.py::test_a_task_of_each_kind_trains",
    "polyqwen split": "tests/data/test_split.py::test_rows_of_a_picture_stay_together_in_all_files",
    "polyqwen mine": "tests/inference/test_mining.py::test_the_command",
    "polyqwen embed": "tests/app/test_embed.py::test_rows_are_found_again",
    "polyqwen search": "tests/app/test_embed.py::test_rows_are_found_again",
    "polyqwen export": "tests/export/test_export.py",
    "train": "tests/app/test_train.py::test_a_run_leaves_results_checkpoints_and_logs",
    "evaluate": "tests/app/test_train.py::test_evaluate_repeats_the_runs_own_numbers",
    "sweep": "tests/app/test_train.py::test_a_sweep_makes_one_run_per_value",
    "study": "tests/app/test_study.py::test_a_killed_study_goes_on",
    "torchrun": "tests/app/test_launch.py::test_torchrun_works_as_well",
    "srun": "docs/clusters.md",  # which says that it was not run
    "python -m tools.draw_concepts": "tests/docs/test_docs.py",
    "python -m tools.screenshots": "tools/screenshots.py",
    "python -m tools.study_statistics": "tests/docs/test_study_statistics.py::"
    "test_the_page_is_made_of_the_committed_runs",
    "python -m tests.data.fuzz_data": "tests/data/fuzz_data.py",
    "python -m benchmarks.": "tests/benchmarks/test_benchmarks.py",
    "python -m pip install .": "tests/package/conftest.py",
    "python -m pip": "Makefile",
    "python -c": "docs/tensorboard.md",
    "python examples/plain": "tests/package/test_examples.py",
    "python examples/make_data.py": "tests/app/test_new_task.py::test_the_examples_train",
    "make install": "Makefile",
    "make install-locked": "Makefile",
    "make lock": "Makefile",
    "make train": "tests/app/test_train.py::test_a_run_leaves_results_checkpoints_and_logs",
    "make test": "tests/conftest.py",
    "make test-all": "tests/conftest.py",
    "make check": "Makefile",
    "make docs": "tests/docs/test_docs.py",
    "make tensorboard": "tests/tensorboard/test_dashboard.py",
}


class Command(NamedTuple):
    """A command and the page that it stands on."""

    page: Path
    text: str

    @property
    def words(self) -> list[str]:
        return shlex.split(self.text, comments=True)

    @property
    def overrides(self) -> list[str]:
        """Of a root script: what it is given, without flags and settings of optional plug-ins."""
        plugins = (
            "--",
            *(f"hydra{sign}{part}" for sign in "/." for part in ("sweeper", "launcher")),
        )
        given = [w for w in self.words[2:] if "=" in w and not w.startswith(plugins)]
        return [w.replace(DOTS, "x").replace("weighting=NAME", "weighting=stw") for w in given]


def commands_of(text: str) -> Iterator[str]:
    found = [*LINE.findall(text), *(" ".join(s.split()) for s in SPAN.findall(text))]
    for line in found:
        yield re.sub(r" *\\\n *", " ", line).strip()


COMMANDS = sorted(
    {
        Command(page, text)
        for page in PAGES
        if page.name != "leaderboard.md"
        for text in commands_of((ROOT / page).read_text(encoding="utf-8"))
    }
)
TRAIN = [c for c in COMMANDS if c.words[1] == "train.py"]
EVALUATE = [c for c in COMMANDS if c.words[1] == "evaluate.py"]
POLYQWEN = [c for c in COMMANDS if c.words[1:3] == ["-m", "polyqwen"] and len(c.words) > 3]


def named(commands: list[Command]) -> Any:
    return pytest.mark.parametrize("command", commands, ids=lambda c: f"{c.page}: {c.text[:70]}")


def test_commands_are_found() -> None:
    text = "    make train   # why\n\n    $ python train.py a=1 \\\n        b=2\n`python -m x\ny`"
    assert list(commands_of(text)) == [
        *("make train   # why", "python train.py a=1 b=2", "python -m x y")
    ]
    assert len(TRAIN) > 40 and len(EVALUATE) > 3 and len(POLYQWEN) > 25


def first_of_sweeps(overrides: list[str]) -> list[str]:
    """One value for each that a sweep goes through."""
    parser = OverridesParser.create()
    chosen = []
    for text, override in zip(overrides, parser.parse_overrides(overrides), strict=True):
        if isinstance(override.value(), IntervalSweep):  # of Optuna's
            text = f"{override.get_key_element()}={override.value().start}"
        elif override.is_sweep_override():
            text = f"{override.get_key_element()}={next(override.sweep_string_iterator())}"
        chosen.append(text)
    return chosen


def configuration(name: str, overrides: list[str], folder: str | None = None) -> dict[str, Any]:
    """What the script would compose, checked as the script checks it."""
    guard_composition()
    own = ["run_dir=there"] if name == "train" else []
    if folder is not None:
        own += [f"hydra.searchpath=['file://{ROOT / folder}']"]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        schema = schema_of(
            CONF, name, GlobalHydra.instance().config_loader().get_group_options("task")
        )
        cfg = compose(name, overrides=[*first_of_sweeps(overrides), *own])
        return check(cfg, schema) if cfg.get("study") is None else dict(cfg)


@named(TRAIN)
def test_train_takes_it(command: Command, walk_tasks: Path) -> None:
    words = [word for word in command.words if word != DOTS]
    folder = words[words.index("--config-dir") + 1] if "--config-dir" in words else None
    if "receipt" in command.text and folder is None:
        folder = str(walk_tasks)
    if command.words[2:] == ["--help"]:
        return
    assert configuration("train", command.overrides, folder)


@named(EVALUATE)
def test_evaluate_takes_it(command: Command) -> None:
    assert configuration("evaluate", command.overrides)


@named(POLYQWEN)
def test_polyqwen_takes_it(command: Command, walk_tasks: Path) -> None:
    words = [word for word in command.words[3:] if word not in (DOTS, "[…]")]
    mentioned = words[1:] == [] and words[0] != "doctor"
    if not mentioned and not re.search(r"[A-Z]+…|\[--", command.text):  # nor a usage line
        arguments = command_line().parse_args(words)
        overrides = getattr(arguments, "overrides", None)
        if overrides:
            folder = arguments.config_dir or (walk_tasks if "receipt" in command.text else None)
            chosen = any(o.startswith(("data=", "experiment=")) for o in overrides)
            assert configuration(
                "train", [*([] if chosen else ["data=folder"]), *overrides], folder
            )
    assert f"polyqwen {words[0]}" in RUN_BY


@pytest.fixture(scope="module")
def walk_tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tasks that docs/your_data.md writes, by its own commands."""
    folder = tmp_path_factory.mktemp("conf")
    text = (ROOT / "docs" / "walkthrough.md").read_text(encoding="utf-8")
    for line in commands_of(text):
        if "new-task" in line:
            arguments = command_line().parse_args([*shlex.split(line)[3:], "--conf", str(folder)])
            arguments.run(arguments)
    assert len(list((folder / "task").iterdir())) == 2
    return folder


@named([c for c in COMMANDS if not c.text.startswith(OURS[:3])])
def test_other_commands_are_run_somewhere(command: Command) -> None:
    words = command.words
    known = [name for name in RUN_BY if command.text.startswith(name)]
    assert known, f"{command.text}: say in RUN_BY what runs it"
    if words[0] == "make":
        assert f"make {words[1]}" in RUN_BY
        result = subprocess.run(["make", "-n", words[1]], cwd=ROOT, capture_output=True, text=True)
        assert result.returncode == 0, result.stderr
    if words[:2] == ["python", "-m"] and words[2].startswith(("benchmarks.", "tools.")):
        assert (ROOT / f"{words[2].replace('.', '/')}.py").is_file(), words[2]
    if words[1].endswith(".py"):
        assert (ROOT / words[1]).is_file()


def test_what_runs_them_is_there() -> None:
    for name, place in RUN_BY.items():
        path, _, test = place.partition("::")
        assert (ROOT / path).is_file(), name
        assert not test or f"\ndef {test}(" in (ROOT / path).read_text(encoding="utf-8"), place
