"""Evaluation of large pools in memory that grows with the rows, never with their square."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

ROWS = 20_000  # their cosines would fill 3.2 GB in float64
LIMIT_MB = 500

PROGRAM = """
import json, sys
import torch
from polyqwen.metrics.choice import hardest_queries
from polyqwen.metrics.similarity import similarity_samples
from polyqwen.metrics.task_metrics import TaskMetrics
from polyqwen.metrics.types import PairEmbeddings

def pairs(rows):
    torch.manual_seed(0)
    query = torch.nn.functional.normalize(torch.randn(rows, 8), dim=1)
    document = torch.nn.functional.normalize(query + 0.01 * torch.randn(rows, 8), dim=1)
    keys = torch.arange(rows)
    return PairEmbeddings(query, document, keys, keys + rows, torch.rand(rows))

def evaluate(rows):
    metrics = TaskMetrics(scored=True)
    given = pairs(rows)
    for start in range(0, rows, 500):
        metrics.update(PairEmbeddings(*(v if v is None else v[start : start + 500] for v in given)))
    values = metrics.compute()
    hardest_queries(metrics.computed_from, None, 4)
    similarity_samples(metrics.computed_from)
    return values

def peak():  # getrusage would tell the parent's
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024

torch.set_num_threads(1)
evaluate(600)
before = peak()
values = evaluate(int(sys.argv[1]))
print(json.dumps({"growth_mb": peak() - before, **values}))
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads a peak from /proc")
def test_a_large_pool_is_measured_in_blocks() -> None:
    answer = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(ROWS)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    values = json.loads(answer.stdout.splitlines()[-1])
    assert values["pool"] == values["queries"] == ROWS
    assert 0.5 < values["recall@1"] <= values["recall@10"] <= 1.0 and values["gap"] > 0.5
    assert 0 < values["growth_mb"] < LIMIT_MB
