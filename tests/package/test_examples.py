"""The examples of a loop of one's own run with the installed package, from an empty folder."""

import re

import pytest

from tests.conftest import ROOT
from tests.package.conftest import Run


@pytest.mark.parametrize("name", ["plain_torch", "plain_lightning"])
def test_it_runs_and_the_noisier_task_gets_the_smaller_weight(name: str, installed: Run) -> None:
    result = installed(str(ROOT / "examples" / f"{name}.py"))
    assert result.returncode == 0, result.stdout + result.stderr
    last = result.stdout.splitlines()[-1]
    titles, comments = (
        float(re.search(rf"'{t}': ([\d.]+)", last)[1]) for t in ("titles", "comments")
    )
    assert titles > 1.2 and comments < 0.8
