"""Every sub-command: a module that is listed, answers ``--help`` without packages, and helps."""

import subprocess
import sys

import pytest

from polyqwen.__main__ import COMMANDS, command_line
from tests.conftest import ROOT

NAMES = [module.__name__.rpartition(".")[2].replace("_", "-") for module in COMMANDS]


def test_every_module_of_the_folder_with_a_run_is_a_command() -> None:
    folder = ROOT / "polyqwen" / "app" / "commands"
    files = {p.stem for p in folder.glob("*.py") if "\ndef add_arguments(" in p.read_text()}
    assert {name.replace("-", "_") for name in NAMES} == files


@pytest.mark.parametrize("name", NAMES)
def test_help_needs_no_package(name: str) -> None:
    command = [sys.executable, "-S", "-m", "polyqwen", name, "--help"]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.startswith(f"usage: python -m polyqwen {name} ")


def test_the_list_says_what_each_command_does() -> None:
    text = " ".join(command_line().format_help().split())
    for module, name in zip(COMMANDS, NAMES, strict=True):
        assert module.__doc__ is not None
        first = module.__doc__.partition("\n")[0].partition(";")[0].rstrip(".")
        assert f"{name} {first[0].lower()}{first[1:]}" in text
