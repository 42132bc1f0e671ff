"""A wheel, built without network and installed into a folder of its own."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.conftest import ROOT

SOURCES = ("pyproject.toml", "setup.py", "README.md", "LICENSE", "polyqwen", "conf")
PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet")


class Wheel(NamedTuple):
    """A wheel and the folder into which it was installed, with nothing else in it."""

    file: Path
    folder: Path


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Wheel:
    """Built from a copy, since building leaves files in the folder of the sources."""
    folder = tmp_path_factory.mktemp("wheel")
    source, target = folder / "source", folder / "site"
    source.mkdir()
    for name in SOURCES:
        if (ROOT / name).is_dir():
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / name, source / name, ignore=ignored)
        else:
            shutil.copy(ROOT / name, source / name)
    offline = ("--no-index", "--no-deps")
    build = [*PIP, "wheel", *offline, "--no-build-isolation", "-w", str(folder), str(source)]
    subprocess.run(build, check=True, timeout=240)
    (file,) = folder.glob("*.whl")
    install = [*PIP, "install", *offline, "--target", str(target), str(file)]
    subprocess.run(install, check=True, timeout=240)
    return Wheel(file, target)


Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def installed(wheel: Wheel, tmp_path: Path) -> Run:
    """Runs Python in an empty folder with the installed package, without the checkout.

    A first word ``polyqwen`` stands for the console script.
    """
    empty = tmp_path / "empty"
    empty.mkdir()
    place = {"PYTHONPATH": str(wheel.folder), "OMP_NUM_THREADS": "1"}

    def run(*command: str) -> subprocess.CompletedProcess[str]:
        script = str(wheel.folder / "bin" / "polyqwen")
        words = [script, *command[1:]] if command[0] == "polyqwen" else command
        return subprocess.run(
            [sys.executable, *words],
            cwd=empty,
            env={**os.environ, **place},
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )

    return run
