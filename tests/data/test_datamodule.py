"""The data module: the curriculum's rows reach the trainer, from any step on, with workers too."""

from collections import Counter
from types import SimpleNamespace
from typing import Any

import pytest
from omegaconf import DictConfig

from polyqwen.build.run import build
from polyqwen.data.batch import Batch
from polyqwen.data.datamodule import CurriculumDataModule
from polyqwen.data.tables.statistics import statistics_table, task_statistics
from tests.conftest import Configure


def data_for(cfg: DictConfig, **trainer: Any) -> CurriculumDataModule:
    data = build(cfg).data
    settings = {"world_size": 1, "global_rank": 0, "accumulate_grad_batches": 1, "global_step": 0}
    data.trainer = SimpleNamespace(max_steps=-1, **{**settings, **trainer})
    return data


def addresses(batch: Batch) -> set[tuple[str, int]]:
    return {(task, row) for task, own in batch.tasks.items() for row in own.row.tolist()}


def stream(data: CurriculumDataModule) -> list[set[tuple[str, int]]]:
    return [addresses(batch) for batch in data.train_dataloader()]


SHORT = ("curriculum.total_steps=6", "curriculum.switch_step=2")


def test_phases_follow_the_step(configure: Configure) -> None:
    batches = stream(data_for(configure(*SHORT)))
    assert [Counter(task for task, _ in batch) for batch in batches] == [
        {"text_pair": 4}
        if step < 2
        else dict.fromkeys(("text_pair", "ocr", "vqa_single", "vqa_multi"), 4)
        for step in range(6)
    ]


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_resumed_loader_goes_on_where_it_stopped(
    configure: Configure, workers: int, accumulate: int
) -> None:
    cfg = configure(*SHORT, f"data.num_workers={workers}")
    whole = stream(data_for(cfg, accumulate_grad_batches=accumulate))
    for step in (1, 2, 5):
        data = data_for(cfg, accumulate_grad_batches=accumulate, global_step=step)
        assert stream(data) == whole[step * accumulate :]
        assert len(data.train_dataloader()) == 6 * accumulate


def test_ranks_and_accumulation_share_the_same_rows(configure: Configure) -> None:
    cfg = configure(*SHORT)
    wide = configure(*SHORT, "data.rows_per_task=8")
    whole = stream(data_for(wide))
    ranks = [stream(data_for(cfg, world_size=2, global_rank=r)) for r in (0, 1)]
    assert [a | b for a, b in zip(*ranks, strict=True)] == whole
    assert not any(a & b for a, b in zip(*ranks, strict=True))
    micro = stream(data_for(cfg, accumulate_grad_batches=2))
    assert [micro[i] | micro[i + 1] for i in range(0, 12, 2)] == whole


def test_shares_divide_a_batch(configure: Configure) -> None:
    cfg = configure(
        *SHORT, "data.rows_per_task=null", "data.batch_size=15", "tasks.ocr.batch_size=2"
    )
    batch = stream(data_for(cfg))[-1]
    counts = Counter(task for task, _ in batch)
    assert counts["ocr"] == 2 and sum(counts.values()) == 15
    assert counts["text_pair"] > counts["vqa_single"] >= counts["vqa_multi"]


def test_evaluation_sees_every_row_once_on_all_ranks_together(configure: Configure) -> None:
    cfg = configure()
    seen: Counter[tuple[str, int]] = Counter()
    for rank in (0, 1, 2):
        data = data_for(cfg, world_size=3, global_rank=rank)
        for loader in data.val_dataloader():
            for batch in loader:
                seen.update(addresses(batch))
    assert set(seen.values()) == {1} and len(seen) == 4 * 32


def test_the_last_batch_of_an_evaluation_may_be_smaller(configure: Configure) -> None:
    (loader, *_) = data_for(configure("data.eval_batch_size=5")).val_dataloader()
    sizes = [len(addresses(batch)) for batch in loader]
    assert sizes == [5] * 6 + [2]
    assert len(loader) == 7  # the trainer stops after so many


def test_evaluation_can_be_limited(configure: Configure) -> None:
    data = data_for(configure("data.eval_rows=5"))
    rows, again = (
        sorted(r for b in data.val_dataloader()[0] for _, r in addresses(b)) for _ in range(2)
    )
    assert len(rows) == 5 and rows == again and rows[-1] - rows[0] > 8  # from all over the split


def test_statistics_count_the_rows(configure: Configure) -> None:
    statistics = task_statistics(data_for(configure()).splits.tables("train"))
    assert [s.rows for s in statistics.values()] == [64] * 4
    assert statistics["ocr"].pictures == 1.0 and statistics["text_pair"].pictures == 0.0
    assert statistics["text_pair"].scores is not None and statistics["ocr"].scores is None
    assert statistics_table(statistics).row_count == 4
