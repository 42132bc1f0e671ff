"""Names that a package offers: found where they say, all of them, and without importing torch."""

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

PACKAGES = (
    "polyqwen",
    "polyqwen.losses",
    "polyqwen.weighting",
    "polyqwen.data",
    "polyqwen.training",
)


@pytest.mark.parametrize("package", PACKAGES)
def test_every_name_is_there(package: str) -> None:
    module = importlib.import_module(package)
    assert module.__all__ and len(set(module.__all__)) == len(module.__all__)
    for name in module.__all__:
        assert getattr(module, name).__name__ == name
    assert {*module.__all__} <= {*dir(module)}
    with pytest.raises(AttributeError, match=f"module '{package}' has no attribute 'nothing'"):
        _ = module.nothing


def test_losses_and_strategies_are_offered() -> None:
    import polyqwen.losses
    import polyqwen.weighting
    from polyqwen.weighting import Weighting

    losses = [name for name in polyqwen.losses.__all__ if name.endswith("Loss")]
    strategies = [
        name
        for name in polyqwen.weighting.__all__
        if isinstance(found := getattr(polyqwen.weighting, name), type)
        and issubclass(found, Weighting)
    ]
    assert len(losses) >= 24 and len(strategies) >= 30


def test_rooms_and_the_check_import_nothing_heavy() -> None:
    lines = "import sys, polyqwen.losses, polyqwen.weighting, polyqwen.data, polyqwen.training\n"
    lines += "import polyqwen.config.check, polyqwen.app.jobs\n"
    lines += (
        "print([m for m in ('torch', 'lightning', 'transformers', 'numpy') if m in sys.modules])"
    )
    result = subprocess.run(
        [sys.executable, "-c", lines], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"


def test_every_room_says_what_it_is() -> None:
    for path in (ROOT / "polyqwen").rglob("__init__.py"):
        first = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
        assert first and first.endswith((".", "T tasks.")), path


def test_the_version_stands_in_one_place() -> None:
    import polyqwen
    from polyqwen.version import __version__

    assert polyqwen.__version__ == __version__
    holders = [
        p for p in Path(ROOT / "polyqwen").rglob("*.py") if f'"{__version__}"' in p.read_text()
    ]
    assert [p.name for p in holders] == ["version.py"]
