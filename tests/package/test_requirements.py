"""Ranges of the package, pins of the checkout and the lock agree."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from polyqwen.app.commands.doctor_packages import pins_of
from tests.conftest import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]


def ranges(texts: list[str]) -> dict[str, Requirement]:
    return {canonicalize_name(r.name): r for r in map(Requirement, texts)}


def exact(path: Path) -> dict[str, str]:
    return {canonicalize_name(name): version for name, version in pins_of(path).items()}


def test_every_pin_is_within_its_range_and_every_range_is_tested() -> None:
    pins = exact(ROOT / "requirements.txt")
    locked = exact(ROOT / "requirements.lock")
    wanted = ranges([*PROJECT["dependencies"], *EXTRAS["dev"]])
    assert set(pins) <= set(wanted)
    for name, requirement in wanted.items():
        assert requirement.specifier.contains(pins.get(name, locked[name])), requirement
        assert {s.operator for s in requirement.specifier} == {">=", "<"}, requirement
    development = (ROOT / "requirements.txt").read_text(encoding="utf-8").split("# development")[1]
    assert {canonicalize_name(n) for n in re.findall(r"^([\w.-]+)==", development, re.M)} == set(
        ranges(EXTRAS["dev"])
    )


def test_the_docs_extra_is_what_the_docs_are_built_with() -> None:
    pins, wanted = exact(ROOT / "docs" / "requirements.txt"), ranges(EXTRAS["docs"])
    assert set(pins) == set(wanted)
    assert all(wanted[name].specifier.contains(version) for name, version in pins.items())


@pytest.mark.parametrize("bad", ["2.6.2", "2.6.3"])
def test_the_malicious_releases_are_out(bad: str) -> None:
    assert not ranges(PROJECT["dependencies"])["lightning"].specifier.contains(bad)


def test_optional_packages_are_no_requirement() -> None:
    assert {"onnx", "mteb", "wandb"} <= set(EXTRAS)
    assert not {"onnx", "onnxscript", "mteb", "wandb"} & set(ranges(PROJECT["dependencies"]))
