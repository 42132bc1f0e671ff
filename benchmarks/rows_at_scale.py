"""Rows from a thousand to ten million: the first batch, memory and resuming; converting files.

    python -m benchmarks.rows_at_scale [--sizes 1000 100000 10000000] [--converted 20000 100000]

Prepares a small split with polyqwen, repeats it to each size (about 320 bytes a row, in a temporary
folder) and starts it once, which leaves statistics and the order by difficulty beside the table.
Then, in fresh processes and interleaved, measures what a run does with its data until it has the
first batch of 480 rows: opening and checking all tables, statistics, sampler, loader. At the start,
and in the largest table resumed at the step of row 1,000 and at 70 % of all rows.

Memory is what the process holds for itself alone (USS). Pages of mapped files that no other process
has open count there too and are given apart: they are the disk's cache, which the kernel takes back
when it needs it, and workers and other ranks share them.
"""

import argparse
import json
import platform
import random
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
BATCH, SMALL, EVAL, PART = 480, 1000, 100, 65_536


def private_mb() -> dict[str, float]:
    """Memory of this process that no other shares: its own, and pages of mapped files."""
    lines = [line.split() for line in Path("/proc/self/smaps_rollup").read_text().splitlines()[1:]]
    sizes = {line[0]: int(line[1]) / 1024 for line in lines}
    mapped = sizes["Private_Clean:"]
    return {"held_mb": sizes["Private_Dirty:"], "mapped_mb": mapped}


def peak_rss_mb() -> float:
    """The most that this process ever held (`getrusage` would tell its parent's)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def data_module(root: Path, cache: Path, step: int = 0) -> Any:
    """One task's rows as a run reads them, easy ones first."""
    from types import SimpleNamespace

    from polyqwen.data.datamodule import CurriculumDataModule
    from polyqwen.data.rows.sources import FolderSource
    from polyqwen.data.rows.task import Task
    from polyqwen.data.sampling.curriculum import Curriculum
    from polyqwen.data.tokens import Tokens

    fields = {"query_text": "a", "document_text": "b", "score": "s"}
    task = Task(fields, prefix="<text_pair>", easy_first=True)
    tokenizer = str(ROOT / "polyqwen/assets/tiny_tokenizer")
    steps = [{"name": "all", "steps": 20_000, "shares": None}]
    data = CurriculumDataModule(
        FolderSource(root),
        {"text_pair": task},
        Tokens(tokenizer, prefixes={"text_pair": "<text_pair>"}),
        Curriculum({"text_pair": 1.0}, steps),
        batch_size=BATCH,
        cache=cache,
    )
    layout = {"world_size": 1, "global_rank": 0, "accumulate_grad_batches": 1, "max_steps": -1}
    data.trainer = SimpleNamespace(global_step=step, **layout)  # type: ignore[assignment]
    return data


def first_batch(root: Path, cache: Path, row: int) -> dict[str, float]:
    """Seconds and megabytes from the making of the data module to the first batch."""
    from polyqwen.data.tables.statistics import task_statistics

    tokens_and_imports = data_module(root, cache).tokens.encode(["warm"])
    assert tokens_and_imports
    before, start, cpu = private_mb(), time.perf_counter(), time.process_time()
    data = data_module(root, cache, row // BATCH)
    data.prepare_data()
    task_statistics(data.splits.tables("train"))
    batch = next(iter(data.train_dataloader()))
    times = {"seconds": time.perf_counter() - start, "cpu_seconds": time.process_time() - cpu}
    assert len(batch.tasks["text_pair"].query) == BATCH
    return times | {k: v - before[k] for k, v in private_mb().items()}


def write_rows(folder: Path, ending: str, rows: int) -> None:
    """Seeded pairs of 2 to 6 words as a data set's train split; small ones to evaluate."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder.mkdir(parents=True)
    draw = random.Random(0)
    words = [f"{draw.choice('bcdghklmnt')}{draw.choice('aeiou')}{i}" for i in range(2000)]

    def row(i: int) -> dict[str, Any]:
        first, second = (" ".join(draw.choices(words, k=draw.randint(2, 6))) for _ in "ab")
        return {"a": f"{first} {i}", "b": second, "s": i % 6 / 5}

    for split, count in (("train", rows), ("dev", EVAL), ("test", EVAL)):
        path = folder / f"{split}{ending}"
        starts = range(0, count, PART)
        parts = ([row(i) for i in range(s, min(count, s + PART))] for s in starts)
        if ending == ".jsonl":
            with path.open("w", encoding="utf-8") as lines:
                lines.writelines(json.dumps(r) + "\n" for part in parts for r in part)
            continue
        tables = map(pa.Table.from_pylist, parts)
        first = next(tables)
        parquet = ending == ".parquet"
        with (
            pa.OSFile(str(path), "wb") as file,
            (pq.ParquetWriter if parquet else pa.ipc.new_stream)(file, first.schema) as out,
        ):
            for table in chain([first], tables):
                out.write_table(table)


def conversion(root: Path, cache: Path) -> dict[str, float]:
    """Rate of the one-time preparation of a split, and by how much it raised the peak of RSS."""
    data = data_module(root, cache)
    data.splits.table("text_pair", "dev")  # imports and the tokenizer's first use
    before, start, cpu = peak_rss_mb(), time.perf_counter(), time.process_time()
    rows = len(data.splits.table("text_pair", "train"))
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    return {
        "rows_per_second": rows / seconds,
        "rows_per_cpu_second": rows / cpu,
        "seconds": seconds,
        "peak_rss_growth_mb": peak_rss_mb() - before,
    }


def in_process(*arguments: object) -> dict[str, float]:
    """The answer of this file in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.rows_at_scale", *map(str, arguments)]
    answer = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    result: dict[str, float] = json.loads(answer.stdout.splitlines()[-1])
    return result


def measure_sizes(folder: Path, sizes: list[int], repeats: int) -> dict[str, Any]:
    """First batches by case, medians beside all runs."""
    from benchmarks.grown_table import grow
    from polyqwen.data.tables.cache import file_of

    root = folder / "data"
    write_rows(root / "text_pair", ".jsonl", SMALL)
    once, runs = {}, {}
    for size in sizes:
        cache = folder / str(size)
        small = data_module(root, cache)
        small.prepare_data()
        path = file_of(small.splits.table("text_pair", "train"))
        assert path is not None
        grow(path, size)
        once[f"{size}_rows"] = {**in_process("first", root, cache, 0), "bytes": path.stat().st_size}
        runs[f"{size}_rows", 0] = cache
    last = folder / str(sizes[-1])
    runs["resumed_at_row_1000", 1000] = runs["resumed_at_70_percent", int(sizes[-1] * 0.7)] = last
    results: dict[str, list[dict[str, float]]] = {name: [] for name, _ in runs}
    for _ in range(repeats):
        for (name, row), cache in runs.items():
            results[name].append(in_process("first", root, cache, row))
    median = {
        name: {key: round(statistics.median(r[key] for r in of), 4) for key in of[0]}
        for name, of in results.items()
    }
    return {"first_batch": median, "very_first_start": once, "runs": results}


def measure_conversions(folder: Path, sizes: list[int]) -> dict[str, Any]:
    """One-time preparation of each kind of file; several sizes show how memory grows."""
    results = {}
    for ending, count in ((e, c) for c in sizes for e in (".jsonl", ".parquet", ".arrow")):
        root = folder / f"{ending[1:]}_{count}"
        write_rows(root / "text_pair", ending, count)
        results[root.name] = in_process("convert", root, folder / f"cache_{root.name}")
    return results


def main() -> None:
    """Measures and writes the result."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--sizes", type=int, nargs="+", default=[1_000, 100_000, 10_000_000])
    parser.add_argument("--converted", type=int, nargs="+", default=[20_000, 100_000])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--to", type=Path, default=Path(__file__).parent / "results")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        measured = measure_sizes(Path(folder), sorted(arguments.sizes), arguments.repeats)
    with tempfile.TemporaryDirectory() as folder:
        converted = measure_conversions(Path(folder), arguments.converted)
    report = {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": f"{platform.machine()}, Python {platform.python_version()}",
        "batch": BATCH,
        "conversion": converted,
        **measured,
    }
    path = arguments.to / "rows_at_scale.json"
    path.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print(json.dumps({k: v for k, v in report.items() if k != "runs"}, indent=2))


if __name__ == "__main__":
    if sys.argv[1:2] == ["first"]:
        print(json.dumps(first_batch(Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4]))))
    elif sys.argv[1:2] == ["convert"]:
        print(json.dumps(conversion(Path(sys.argv[2]), Path(sys.argv[3]))))
    else:
        main()
