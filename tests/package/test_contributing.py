"""What CONTRIBUTING says of additions: three places at most, and the tests find them."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

COPIED = ("polyqwen", "conf", "tests", "train.py", "evaluate.py", "pyproject.toml")

LOSS = '''"""A logistic loss of the positives alone."""

from typing import ClassVar

from torch import nn
from torch.nn import functional as F

from polyqwen.losses.similarity import mean, paired_cosine
from polyqwen.losses.types import LossOutput, Pairs


class LogisticLoss(nn.Module):
    """``L_i = log(1 + exp(-cos(q_i, d_i)))``, mean over rows."""

    lower_bound: ClassVar[float] = 0.0

    def forward(self, pairs: Pairs) -> LossOutput:
        """Mean over rows."""
        total = mean(F.softplus(-paired_cosine(pairs)))
        return LossOutput(total, {"logistic": total.detach()}, total.new_zeros(()))
'''
LOSS_ROW = """CASES["logistic"] = Case(
    LogisticLoss,
    lambda p: sum(
        math.log1p(math.exp(-sum(a * b for a, b in zip(q, d, strict=True))))
        for q, d in zip(p.query.tolist(), p.document.tolist(), strict=True)
    ) / len(p.query),
)
"""
STRATEGY = '''"""Weights by the inverse of each loss."""

from torch import Tensor

from polyqwen.weighting.base import Weighting
from polyqwen.weighting.statistics import Decision, Statistics


class InverseLoss(Weighting):
    """``λ_t`` proportional to ``1 / l_t`` over the tasks seen, with their number as their sum.

    Args:
        static: task -> weight until the first update, > 0.
        eval_steps: optimizer steps between updates, >= 1.
    """

    needs_bounds = True

    def _next(self, statistics: Statistics, old: Tensor) -> Decision:
        seen = statistics.active
        inverse = 1 / self._excess(statistics.loss)
        weights = old.clone()
        weights[seen] = inverse[seen] / inverse[seen].mean()
        return Decision(weights, "inverse losses")
'''
TASK_OF_THE_LOSS = """losses:
  my_pairs:
    _target_: polyqwen.losses.logistic.LogisticLoss
"""


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The repository with a loss, a strategy, a task and a backbone more."""
    folder = tmp_path_factory.mktemp("copy")
    for name in COPIED:
        source = ROOT / name
        ignored = shutil.ignore_patterns("__pycache__")
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=ignored)
        else:
            shutil.copy(source, folder / name)

    # a task: one command, one file
    command = [sys.executable, "-m", "polyqwen", "new-task", "my_pairs"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)

    # a loss: source, the node of a task that uses it, a row of the test
    (folder / "polyqwen" / "losses" / "logistic.py").write_text(LOSS)
    task = folder / "conf" / "task" / "my_pairs.yaml"
    before, _, rest = task.read_text().partition("losses:\n")
    task.write_text(before + TASK_OF_THE_LOSS + "metrics:\n" + rest.partition("metrics:\n")[2])
    cases = folder / "tests" / "losses" / "loss_cases.py"
    text = cases.read_text()
    head, marker, tail = text.partition("\n\ndef random_pairs(")
    imports = "import math\n\nfrom polyqwen.losses.logistic import LogisticLoss\n"
    head = head.replace("import torch\n", f"{imports}import torch\n", 1)
    cases.write_text(f"{head}{LOSS_ROW}{marker}{tail}")

    # a strategy: source and YAML (and a value by hand, which is one's own)
    (folder / "polyqwen" / "weighting" / "by_loss" / "inverse_loss.py").write_text(STRATEGY)
    (folder / "conf" / "weighting" / "inverse_loss.yaml").write_text(
        "# The inverse of each loss.\n"
        "_target_: polyqwen.weighting.by_loss.inverse_loss.InverseLoss\neval_steps: 50\n"
    )

    # a backbone of a known family: one file
    text = (folder / "conf" / "model" / "encoder" / "bert_tiny.yaml").read_text()
    (folder / "conf" / "model" / "encoder" / "bert_wide.yaml").write_text(text)
    return folder


@pytest.mark.parametrize(
    ("files", "names", "fewest"),
    [
        (["losses/test_losses.py"], "logistic", 5),
        (["weighting/test_weighting_contract.py"], "inverse_loss", 9),
        (["config/test_conf.py"], "inverse_loss or my_pairs or bert_wide or studies", 5),
    ],
    ids=["loss", "strategy", "configuration"],
)
def test_the_tests_find_it_and_pass(copy: Path, files: list[str], names: str, fewest: int) -> None:
    paths = [f"tests/{file}" for file in files]
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *paths, "-k", names, "-q"]
    result = subprocess.run(command, cwd=copy, capture_output=True, text=True, timeout=400)
    assert result.returncode == 0, result.stdout[-4000:] + result.stderr[-2000:]
    assert "failed" not in result.stdout and result.stdout.count(".") >= fewest


def test_all_of_it_is_accepted_by_the_command(copy: Path) -> None:
    chosen = ["task=[my_pairs]", "curriculum=single_phase", "weighting=inverse_loss"]
    chosen += ["model=tiny_text", "model/encoder=bert_wide", "--cfg", "job"]
    command = [sys.executable, "train.py", *chosen]
    result = subprocess.run(command, cwd=copy, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    for target in ("losses.logistic.LogisticLoss", "weighting.by_loss.inverse_loss.InverseLoss"):
        assert f"_target_: polyqwen.{target}" in result.stdout
