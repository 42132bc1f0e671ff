"""Loader processes end with a run that is killed, also with batches that nobody takes."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import ROOT

RUN = """
import time
import torch
from torch.utils.data import DataLoader
from polyqwen.data.datamodule import outlive

class Rows(torch.utils.data.Dataset):
    def __len__(self): return 1000
    def __getitem__(self, i): return bytes({size})

loader = DataLoader(Rows(), num_workers=2, collate_fn=list, worker_init_fn=outlive)
loader = iter(loader)
next(loader)
print(*(worker.pid for worker in loader._workers), flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("size", [10, 1_000_000])  # a pipe holds 65,536 bytes
def test_loaders_of_a_killed_run_are_gone(size: int) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", RUN.format(size=size)], cwd=ROOT, text=True, stdout=subprocess.PIPE
    ) as run:
        assert run.stdout is not None
        workers = [int(pid) for pid in run.stdout.readline().split()]
        time.sleep(1)  # until the pipe is full
        run.send_signal(signal.SIGKILL)
    assert len(workers) == 2
    until = time.monotonic() + 15
    while time.monotonic() < until and any(map(alive, workers)):
        time.sleep(0.1)
    left = list(filter(alive, workers))
    for worker in left:
        os.kill(worker, signal.SIGKILL)
    assert not left


def alive(process: int) -> bool:
    """Neither gone nor waiting for somebody to ask how it ended."""
    try:
        status = Path(f"/proc/{process}/stat").read_text(encoding="utf-8")
    except OSError:
        return False
    return status.rpartition(")")[2].split()[0] != "Z"
