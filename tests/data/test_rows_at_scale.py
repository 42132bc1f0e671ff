"""What a start reads and holds does not grow with the table, counted in bytes."""

import gc
import tracemalloc
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from benchmarks.grown_table import grow
from polyqwen.build.run import build
from polyqwen.data.datamodule import CurriculumDataModule
from polyqwen.data.tables.cache import file_of
from polyqwen.data.tables.statistics import DistinctCount, task_statistics
from tests.conftest import Configure

ROWS = {"small": 1_000, "large": 100_000}
OPTIONS = [
    "model=tiny_text",
    "task=[text_pair,sentiment]",
    "curriculum=single_phase",
    "curriculum.total_steps=2000",
    "+tasks.text_pair.easy_first=true",
]


def data_for(configure: Configure, cache: Path, step: int = 0) -> CurriculumDataModule:
    data = build(configure(*OPTIONS, f"data_cache={cache}")).data
    layout = {"world_size": 1, "global_rank": 0, "accumulate_grad_batches": 1, "max_steps": -1}
    data.trainer = SimpleNamespace(global_step=step, **layout)  # type: ignore[assignment]
    return data


def whole(data: CurriculumDataModule, task: str) -> Path:
    """The file of a task's folder; a task's stream is a part of it, named ``<folder's>-…``."""
    file = file_of(data.splits.table(task, "train"))
    assert file is not None
    return file.with_name(file.stem.split("-")[0] + ".arrow")


def start(data: CurriculumDataModule) -> Any:
    """All that a run does with its data until it has the first batch."""
    data.prepare_data()
    task_statistics(data.splits.tables("train"), {"sentiment": "sentiment"})
    return next(iter(data.train_dataloader()))


def allocated(data: CurriculumDataModule) -> int:
    """Bytes that Python, numpy and Arrow hold at most during a start; mapped files do not count."""
    gc.collect()
    pool = pa.default_memory_pool()
    tracemalloc.start()
    before = pool.bytes_allocated()
    start(data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak + pool.bytes_allocated() - before


@pytest.fixture(scope="module")
def caches(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {size: tmp_path_factory.mktemp(size) for size in ROWS}


def test_a_start_holds_no_more_for_more_rows(configure: Configure, caches: dict[str, Path]) -> None:
    held: dict[str, list[int]] = {}
    for size, rows in ROWS.items():
        small = data_for(configure, caches[size])
        small.prepare_data()
        for task in small.tasks:
            grow(whole(small, task), rows)
        once = data_for(configure, caches[size])
        first = allocated(once)
        assert len(once.splits.table("text_pair", "train")) == rows
        assert rows / 5 < len(once.splits.table("sentiment", "train")) < rows
        allocated(data_for(configure, caches[size]))  # what Python itself keeps
        held[size] = [
            first,
            allocated(data_for(configure, caches[size])),
            allocated(data_for(configure, caches[size], step=1_000)),
        ]
    # 100 kB more for 99,000 more rows: a byte per row. The first start made what the others found
    # beside the tables: had it made nothing, there would be nothing to tell
    assert held["large"][0] - held["small"][0] > 8 * 99_000
    for now, later in zip(held["small"][1:], held["large"][1:], strict=True):
        assert later - now < 100_000


def test_statistics_of_batches_are_those_of_all_rows(configure: Configure) -> None:
    data = build(configure()).data
    for task, own in task_statistics(data.splits.tables("train")).items():
        table = data.splits.table(task, "train")
        costs = np.asarray(table["cost"])
        assert own.tokens == pytest.approx(costs.mean())
        assert own.tokens_p95 == pytest.approx(np.quantile(costs, 0.95))
        assert own.distinct_documents == len({row["key"] for row in table["document"]})
        if own.scores is not None:
            quartiles = np.quantile(np.asarray(table["score"]), [0.25, 0.5, 0.75])
            assert own.scores == pytest.approx(quartiles.tolist(), abs=1e-3)
    again = task_statistics(data.splits.tables("train"))
    assert again == task_statistics(build(configure()).data.splits.tables("train"))


def test_different_hashes_are_counted_in_bounded_memory() -> None:
    numbers = np.random.default_rng(0).integers(-(2**63), 2**63 - 1, 40_000)
    exact, bounded = DistinctCount(), DistinctCount(kept=2_000)
    for part in np.split(np.concatenate([numbers, numbers]), 8):
        exact.add(part)
        bounded.add(part)
    assert exact.estimate() == len(set(numbers.tolist()))
    assert bounded.estimate() == pytest.approx(40_000, rel=4 / 2_000**0.5)
