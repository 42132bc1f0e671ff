"""The first thing a training system must show: it can learn a few rows by heart."""

import pytest
import torch

from polyqwen.build.run import build
from polyqwen.data.tables.dataset import MultiTaskDataset
from polyqwen.losses.types import Pairs
from polyqwen.training.step import pairs_of_task
from tests.conftest import Configure

ROWS = 32
STEPS = 250


@pytest.mark.slow
def test_32_rows_of_each_task_are_learnt_by_heart(configure: Configure) -> None:
    """Training recall@1 reaches 1.0 on all four tasks together."""
    cfg = configure("data.rows_per_task=32", "losses.text_pair.score_gate=none")
    data, model = build(cfg)
    dataset = MultiTaskDataset(data.splits.tables("train"))
    addresses = [(task, row) for task in data.tasks for row in distinct_rows(dataset, task)]
    batch = data.collator(dataset.__getitems__(addresses))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    recall: dict[str, float] = {}
    for step in range(STEPS):
        total = model.training_step(batch, step)
        optimizer.zero_grad()
        total.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
        if step % 25 == 24:
            with torch.no_grad():
                embeddings = model(batch)
            recall = {
                task: recall_at_1(pairs_of_task(embeddings, batch.tasks[task]))
                for task in data.tasks
            }
            if min(recall.values()) == 1.0:
                return
    pytest.fail(f"after {STEPS} steps recall@1 is {recall}")


def distinct_rows(dataset: MultiTaskDataset, task: str) -> list[int]:
    """32 rows whose documents all differ: equal ones could not be told apart."""
    rows: dict[int, int] = {}
    for row in range(len(dataset.tables[task])):
        rows.setdefault(dataset[task, row].document.key, row)
    chosen = list(rows.values())[:ROWS]
    assert len(chosen) == ROWS
    return chosen


def recall_at_1(pairs: Pairs) -> float:
    best = (pairs.query @ pairs.document.T).argmax(-1)
    return float((best == torch.arange(len(best))).float().mean())
