"""Tables of the run on a GPU."""

import statistics
from typing import Any

from benchmarks.suite.runner import speedup
from benchmarks.tables.text import MISSING, environment_line, markdown, ratio_text

DATASHEET = 989  # TFLOP/s of an H100 or H200 in bf16, dense


def gpu(report: dict[str, Any]) -> str:
    """Speed, share of the chip's best, peak memory; growth with the batch; cost of weighting."""
    if report["tiny"] or not report["parts"]:
        return MISSING
    parts = report["parts"]
    rows = [
        row for name in ("W1", "W2", "W3") if name in parts for row in _gpu_rows(name, parts[name])
    ]
    head = ["arm", "pairs/s", "of measured matmul", "of 989 TFLOP/s", "peak GiB"]
    found = [markdown(head, rows)] if rows else []
    if "W5" in parts:
        sizes = [
            [
                str(row["pairs"]),
                f"{row['peak'] / 2**30:.1f}",
                f"{row['pairs'] / row['seconds']:.1f}",
            ]
            for row in parts["W5"]["result"]
        ]
        found.append(markdown(["W5, cached: pairs", "peak GiB", "pairs/s"], sizes))
    if "W6" in parts:
        costs = [
            [tasks, *(ratio_text(speedup(own["static"], own[arm])) for arm in own)]
            for tasks, own in parts["W6"]["result"].items()
        ]
        arms = next(iter(parts["W6"]["result"].values()))
        found.append(markdown(["W6, step time over static: tasks", *arms], costs))
    return "\n\n".join([*found, environment_line(next(iter(parts.values())))])


def _gpu_rows(name: str, part: dict[str, Any]) -> list[list[str]]:
    found, best = part["result"], part["ceilings"]["tflops"]
    rows = []
    for arm, memory in found["peak_bytes"].items():
        if arm not in found["seconds"]:
            rows.append([f"{name} {arm}", "–", "–", "–", str(memory)])
            continue
        seconds = statistics.median(found["seconds"][arm])
        done = found["useful_flops"] / seconds / 1e12
        rows.append(
            [
                f"{name} {arm}",
                f"{found['pairs'] / seconds:.1f}",
                f"{100 * done / best:.1f} %",
                f"{100 * done / DATASHEET:.1f} %",
                f"{memory / 2**30:.1f}",
            ]
        )
    return rows
