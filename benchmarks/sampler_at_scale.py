"""Ten million rows: how soon the first batch comes, what it costs in memory, and resuming late.

    python -m benchmarks.sampler_at_scale [--rows 10000000] [--to benchmarks/results]

Writes a table of that many prepared rows (about 1.5 GB, in a temporary folder), then times, in
fresh processes and interleaved, from the making of the sampler to the first collated batch of 480
rows: at the start, and resumed at the step of row 1,000 and of row 7,000,000. Memory is what the
process holds for itself alone (pages of the mapped file are shared and not counted).
"""

import argparse
import json
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa

BATCH, GROUP, WORDS = 480, 1000, 8


def write_table(path: Path, rows: int) -> None:
    """The same group of rows over and over, in the form of `polyqwen.data.tables.prepare`."""
    from polyqwen.data.tables.prepare import SCHEMA

    def content(i: int) -> dict[str, object]:
        ids = [300 + (i * 7 + k) % 1000 for k in range(WORDS)]
        return {"ids": ids, "text": f"text {i}", "image": None, "height": 0, "width": 0, "key": i}

    group = [
        {
            "query": content(2 * i),
            "document": content(2 * i + 1),
            "negatives": [],
            "score": (i % 6) / 5,
            "info": "{}",
            "cost": 2 * WORDS + i % 9,
        }
        for i in range(GROUP)
    ]
    table = pa.Table.from_pylist(group, schema=SCHEMA)
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, SCHEMA) as writer:
        for _ in range(rows // GROUP):
            writer.write_table(table)


def private_mb() -> float:
    """Memory of this process that no other shares."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private")) / 1024


def measure(path: Path, first_row: int) -> dict[str, float]:
    """Seconds and megabytes from the sampler's making to the first batch."""
    from datasets import Dataset
    from torch.utils.data import DataLoader

    from polyqwen.config.resolvers import register
    from polyqwen.data.collator import Collator
    from polyqwen.data.images.images import Pictures
    from polyqwen.data.sampling.batches import MicroBatchSampler
    from polyqwen.data.sampling.curriculum import Curriculum
    from polyqwen.data.sampling.sampler import StepSampler
    from polyqwen.data.tables.dataset import MultiTaskDataset
    from polyqwen.data.tokens import Tokens

    register()
    root = Path(__file__).parent.parent
    tokens = Tokens(
        str(root / "polyqwen/assets/tiny_tokenizer"), prefixes={"text_pair": "<text_pair>"}
    )
    collator = Collator(tokens, Pictures(path.parent), visual_tokens={"text_pair": 768})
    table = Dataset.from_file(str(path))
    before, start = private_mb(), time.perf_counter()
    dataset = MultiTaskDataset({"text_pair": table})
    steps = len(table) // BATCH
    curriculum = Curriculum({"text_pair": 1.0}, [{"name": "all", "steps": steps, "shares": None}])
    sampler = MicroBatchSampler(
        StepSampler({"text_pair": len(table)}, curriculum, BATCH, seed=0), costs=dataset.costs_at
    )
    sampler.start_at(first_row // BATCH)
    batch = next(iter(DataLoader(dataset, batch_sampler=sampler, collate_fn=collator)))
    seconds = time.perf_counter() - start
    assert len(batch.tasks["text_pair"].query) == BATCH
    return {"seconds": seconds, "private_mb": private_mb() - before}


def main() -> None:
    """Writes the table, measures each case in processes of its own, writes the result."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--to", type=Path, default=Path(__file__).parent / "results")
    parser.add_argument("--measure", nargs=2, metavar=("TABLE", "ROW"), help="used by itself")
    arguments = parser.parse_args()
    if arguments.measure:
        table, row = arguments.measure
        print(json.dumps(measure(Path(table), int(row))))
        return
    cases = {"start": 0, "row_1000": 1000, "row_7000000": int(arguments.rows * 0.7)}
    results: dict[str, list[dict[str, float]]] = {name: [] for name in cases}
    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder) / "rows.arrow"
        write_table(table, arguments.rows)
        for _ in range(arguments.repeats):
            for name, row in cases.items():
                command = [sys.executable, __file__, "--measure", str(table), str(row)]
                answer = subprocess.run(command, capture_output=True, text=True, check=True)
                results[name].append(json.loads(answer.stdout.splitlines()[-1]))
    report = {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": f"{platform.machine()}, Python {platform.python_version()}",
        "rows": arguments.rows,
        "batch": BATCH,
        "median": {
            name: {key: statistics.median(r[key] for r in runs) for key in runs[0]}
            for name, runs in results.items()
        },
        "runs": results,
    }
    arguments.to.mkdir(parents=True, exist_ok=True)
    path = arguments.to / "sampler_at_scale.json"
    path.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(report["median"], indent=2))


if __name__ == "__main__":
    main()
