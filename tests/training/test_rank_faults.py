"""Trouble on one rank: all processes are gone soon, and its own error is the last on screen."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path

import pytest
import torch
from torch import Tensor

from polyqwen.build.run import build
from polyqwen.build.trainer import build_trainer
from polyqwen.data.batch import Batch
from tests.app.test_launch import QUICK, torchrun, training, working_for
from tests.conftest import ROOT, Configure
from tests.ranks import on_ranks
from tests.training.test_resume import SHORT

GONE = 30.0  # seconds, on a machine that does other things too; without a limit it would be 1800


@pytest.fixture
def damaged(folder: Path, tmp_path: Path) -> Path:
    """A data folder with one picture that ends too early: the rank that draws it fails."""
    root = shutil.copytree(folder, tmp_path / "data")
    row = json.loads((root / "ocr/train.jsonl").read_text().splitlines()[5])
    picture = root / row["image"]
    picture.write_bytes(picture.read_bytes()[:-60])
    return root


def arguments(root: Path, cache: Path) -> list[str]:
    data = ["data=folder", f"data.root={root}", f"data_cache={cache}", *QUICK]
    # eight rows a step of 64: a few passes, so that the row is drawn for certain
    return [*data, "task=[text_pair,ocr]", "total_steps=60"]


def test_an_exception_on_one_rank_ends_all(damaged: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    own = arguments(damaged, tmp_path / "cache")
    process = subprocess.Popen(
        [sys.executable, "train.py", *own, f"run_dir={out}", "trainer.devices=2"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    notes = []
    while process.poll() is None:
        notes = list(out.glob("rank_*.error"))
        if notes:
            break
        time.sleep(0.05)
    start = time.monotonic()
    text, _ = process.communicate(timeout=120)
    assert notes and time.monotonic() - start < GONE
    assert process.returncode == 1 and not working_for(out), text[-2000:]
    last = text.strip().splitlines()[-1]
    assert last.startswith("error: ") and "cannot be read" in last and ".png" in last, text[-2000:]


def test_torchrun_ends_with_the_first_error(damaged: Path, tmp_path: Path) -> None:
    own = arguments(damaged, tmp_path / "cache")
    result = torchrun(*own, f"log_dir={tmp_path / 'logs'}")
    assert result.returncode != 0 and not working_for(tmp_path / "logs")
    cause = result.stderr[result.stderr.rindex("Root Cause") :]
    assert "cannot be read" in cause and ".png" in cause, result.stderr[-3000:]


@pytest.mark.parametrize("victim", [0, 1])
def test_a_hung_rank_ends_the_run_after_the_timeout(
    folder: Path, cache: Path, tmp_path: Path, victim: int
) -> None:
    out = tmp_path / "run"
    limit = ["trainer.devices=2", "process_group_timeout=5"]
    with training(folder, cache, out, *limit) as process:
        (hung,) = working_for(out, rank=victim)
        os.kill(hung, signal.SIGSTOP)
        start = time.monotonic()
        text, _ = process.communicate(timeout=5 + 2 * GONE)
        assert time.monotonic() - start > 4
        assert process.returncode not in (0, None) and not working_for(out)
    assert f"rank {1 - victim} failed" in text or "Traceback" in text
    assert re.search("[Tt]imed out|[Tt]imeout", text), text[-2000:]


def test_the_timeout_is_handed_on(configure: Configure, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LOCAL_RANK", "RANK"):
        monkeypatch.setenv(name, "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    cfg = configure("trainer.devices=2", "process_group_timeout=77")
    assert build_trainer(cfg).strategy._timeout == timedelta(seconds=77)  # type: ignore[attr-defined]


def test_a_rank_without_a_task_or_pictures(configure: Configure, tmp_path: Path) -> None:
    """Rank 1 stays with the text pairs of the first phase, while rank 0 has tasks with pictures."""

    def run(rank: int) -> tuple[float, int, dict[str, Tensor]]:
        two = ("trainer.devices=2", "data.rows_per_task=4", "weighting.eval_steps=2")
        cfg = configure(*SHORT, *two, f"run_dir={tmp_path}")
        data, model = build(cfg)
        trainer = build_trainer(cfg)
        plain, kept = model.training_step, []

        def starved(batch: Batch, batch_idx: int) -> Tensor:
            kept.append(batch)
            assert (batch.images is None) is (batch_idx < 3) and kept[0].images is None
            return plain(kept[0] if rank else batch, batch_idx)

        model.training_step = starved  # type: ignore[method-assign]
        trainer.fit(model, datamodule=data)
        assert model.record is not None and set(model.record.outputs) == set(model.tasks)
        weights = {name: p.detach().clone() for name, p in model.named_parameters()}
        return float(model.record.total), len(model.record.tasks), weights

    (loss, tasks, ours), (other, own, theirs) = on_ranks(2, run)
    assert loss == other and (tasks, own) == (4, 1)
    for name, value in ours.items():
        assert value.isfinite().all() and torch.equal(value, theirs[name]), name
