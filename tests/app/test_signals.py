"""SIGTERM and SIGINT at any moment, to any process: what was trained is saved, nothing left."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from polyqwen.checkpoints.sidecar import verified
from tests.app.test_launch import QUICK, working_for
from tests.conftest import ROOT

LONG = ["total_steps=2000", "phase1_steps=1000"]
LIMIT = 8.0  # seconds from the signal to the last process
MOMENTS = {
    "start-up": [*LONG, "validate_every=1000"],
    "training": [*LONG, "validate_every=1000", "callbacks.last.every_n_train_steps=2"],
    "validation": [*LONG, "validate_every=2", "data.eval_batch_size=1"],
    "accumulation": [
        *LONG,
        "validate_every=1000",
        "callbacks.last.every_n_train_steps=2",
        "trainer.accumulate_grad_batches=8",
        "data.rows_per_task=1",
    ],
}


@contextmanager
def started(out: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A run in a process of its own; what is left of it is ended with the test."""
    process = subprocess.Popen(
        [sys.executable, "train.py", *arguments, f"run_dir={out}"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        process_group=0,
    )
    try:
        yield process
    finally:
        for pid in working_for(out):
            os.kill(pid, signal.SIGKILL)
        process.communicate()


def wait_until(there: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    """Looks often: a validation of a tiny model is short."""
    until = time.monotonic() + 120
    while not there():
        assert process.poll() is None and time.monotonic() < until, process.communicate()[0]
        time.sleep(0.002)


def rank(out: Path, number: int) -> list[int]:
    """Its process, without the loaders that it started."""
    return sorted(working_for(out, rank=number))[:1]


TARGETS: dict[str, Callable[[Path, int], list[int]]] = {
    "rank 0": lambda out, _: rank(out, 0),
    "rank 1": lambda out, _: rank(out, 1),
    "all": lambda out, parent: [parent, *rank(out, 0), *rank(out, 1)],
}
FAST = {("all", "validation"), ("rank 1", "start-up")}
CASES = [
    pytest.param(target, moment, marks=[] if (target, moment) in FAST else [pytest.mark.slow])
    for target in TARGETS
    for moment in MOMENTS
]


@pytest.mark.parametrize(("target", "moment"), CASES)
def test_a_signal_saves_and_ends_all(
    folder: Path, cache: Path, tmp_path: Path, target: str, moment: str
) -> None:
    out = tmp_path / "run"
    data = ["data=folder", f"data.root={folder}", f"data_cache={cache}", *QUICK]
    last = out / "checkpoints" / "last.ckpt"
    with started(out, *data, *MOMENTS[moment], "trainer.devices=2") as process:
        if moment == "start-up":
            wait_until(lambda: len(rank(out, 1)) == 1, process)
            time.sleep(2.0)  # in the imports
        else:
            wait_until(last.exists, process)
            time.sleep(0.0 if moment == "validation" else 0.3)
        begun = time.monotonic()
        for pid in TARGETS[target](out, process.pid):
            os.kill(pid, signal.SIGTERM)
        text, _ = process.communicate(timeout=60)
        assert process.returncode == 143, text
        took = time.monotonic() - begun
        assert not working_for(out) and took < LIMIT, f"{took:.1f} s: {text}"
    if moment == "start-up":
        assert "interrupted (SIGTERM); this run has no checkpoint yet" in text
        assert not last.exists()
        return
    steps = int(re.search(r"interrupted \(SIGTERM\) after (\d+) steps", text)[1])  # type: ignore[index]
    assert verified(last).step == steps > 0
    saved = torch.load(last, weights_only=True)
    if moment == "validation":
        assert steps == 2 and saved["callbacks"]["DueValidation"]["validated"] == 0


@pytest.mark.parametrize(
    "number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)]
)
def test_one_process_with_loaders_that_are_told_too(
    folder: Path, cache: Path, tmp_path: Path, number: signal.Signals
) -> None:
    """As Ctrl-C in a terminal and schedulers do: the whole group gets the signal."""
    out = tmp_path / "run"
    data = ["data=folder", f"data.root={folder}", f"data_cache={cache}", *QUICK]
    last = out / "checkpoints" / "last.ckpt"
    with started(out, *data, *MOMENTS["training"], "data.num_workers=2") as process:
        wait_until(last.exists, process)
        begun = time.monotonic()
        os.killpg(process.pid, number)
        text, _ = process.communicate(timeout=60)
        assert process.returncode == 128 + number, text
        assert time.monotonic() - begun < LIMIT and not working_for(out), text
        assert "Traceback" not in text
    assert verified(last).step > 0


def slurm_script() -> str:
    """The one of the documentation, from the call of srun on."""
    text = (ROOT / "docs" / "clusters.md").read_text(encoding="utf-8")
    lines = [line.removeprefix("    ") for line in text.splitlines()]
    start = next(i for i, line in enumerate(lines) if line.startswith("srun "))
    return "\n".join(lines[start : lines.index("exit $status") + 1])


@pytest.mark.parametrize(("status", "asked"), [(143, "requeue 17\n"), (0, ""), (1, "")])
def test_an_interrupted_job_is_queued_again(tmp_path: Path, status: int, asked: str) -> None:
    commands = {"srun": f"exit {status}", "scontrol": f'echo "$@" >> {tmp_path}/asked'}
    for name, body in commands.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{body}\n")
        (tmp_path / name).chmod(0o755)
    result = subprocess.run(
        ["bash", "-c", slurm_script()],
        env={"PATH": f"{tmp_path}:/usr/bin:/bin", "SLURM_JOB_ID": "17"},
        check=False,
    )
    assert result.returncode == status
    file = tmp_path / "asked"
    assert (file.read_text() if file.exists() else "") == asked
