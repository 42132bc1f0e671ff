"""How the memory of a step grows with its batch: small model, pictures against texts (W2).

    python -m benchmarks.memory [--modes cached] [--pairs 120 240 480 960 1920]

Each size runs in a process of its own. Counted are the bytes of all tensors that are alive at once
during forward and backward, without parameters, inputs and optimizer. What must grow with the
batch, the contents' features and their gradients, is taken off: the rest should not grow in the
mode ``cached``.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

from benchmarks.suite.environment import environment
from benchmarks.suite.live_bytes import LiveBytes
from benchmarks.suite.model import TINY, build
from benchmarks.suite.ours import Mode, Ours
from benchmarks.suite.workloads import CPU, collator, pairs

RESULTS = Path(__file__).parent / "results"
CHUNK_TOKENS = 4096
VISUAL_PATCHES = 4096
EMBEDDING = 128


def measure(mode: Mode, count: int) -> dict[str, Any]:
    """Peak and features of one step, in bytes."""
    make = collator(CHUNK_TOKENS)
    module = build(TINY, make.tokens.vocabulary, EMBEDDING)
    for parameter in module.parameters():  # gradients are there before the step, as with Adam's
        if parameter.requires_grad:
            parameter.grad = torch.zeros_like(parameter)
    batch = make(pairs("W2", count, CPU))
    ours = Ours(module, mode, batch, VISUAL_PATCHES)
    with LiveBytes() as live:
        ours.backward()
    hidden = module.encoder.hidden_size
    assert batch.images is not None
    visual = int(batch.images.grid.prod(1).sum()) // 4 * hidden
    # a content's pooled features and its projection's activations, each with its gradient
    head = 2 * 2 * count * (hidden + 6 * EMBEDDING)
    return {"pairs": count, "peak": live.peak, "features": 4 * (visual + head), "left": live.now}


def slope(rows: list[dict[str, Any]]) -> float:
    """Bytes per pair that are neither inputs nor features, by least squares."""
    x = torch.tensor([row["pairs"] for row in rows], dtype=torch.float64)
    y = torch.tensor([row["peak"] - row["features"] for row in rows], dtype=torch.float64)
    x = x - x.mean()
    return float((x * (y - y.mean())).sum() / (x * x).sum())


def main() -> None:
    """Measures each size in a fresh process and writes the result."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--modes", nargs="+", default=["cached"])
    parser.add_argument("--pairs", nargs="+", type=int, default=[120, 240, 480, 960, 1920])
    parser.add_argument("--to", type=Path, default=RESULTS / "memory.json")
    parser.add_argument("--measure", nargs=2, metavar=("MODE", "PAIRS"), help="used by itself")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.measure:
        mode, count = arguments.measure
        print(json.dumps(measure(mode, int(count))))
        return
    report: dict[str, Any] = {
        "environment": environment(torch.device("cpu")),
        "chunk_tokens": CHUNK_TOKENS,
        "visual_patches": VISUAL_PATCHES,
        "modes": {},
    }
    for mode in arguments.modes:
        rows = []
        for count in arguments.pairs:
            command = [sys.executable, "-m", "benchmarks.memory", "--measure", mode, str(count)]
            answer = subprocess.run(command, capture_output=True, text=True, check=True)
            rows.append(json.loads(answer.stdout.splitlines()[-1]))
            print(mode, rows[-1])
        rest = [row["peak"] - row["features"] for row in rows]
        report["modes"][mode] = {
            "rows": rows,
            "growth": rest[-1] / rest[0],
            "bytes_per_pair": slope(rows) if len(rows) > 1 else None,
        }
    arguments.to.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
