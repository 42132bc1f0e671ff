"""Tables of docs/performance.md out of benchmarks/results, between their markers.

    python -m benchmarks.table [--check]

Each table stands between ``<!-- table: NAME -->`` and ``<!-- end -->``. ``--check`` changes nothing
and fails where the page and the results differ.
"""

import argparse
import json
import re
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.suite.runner import Ratio, speedup

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "performance.md"
RESULTS = ROOT / "benchmarks" / "results"
DATASHEET = 989  # TFLOP/s of an H100 or H200 in bf16, dense
MISSING = "Not yet measured."
MARKED = re.compile(r"(<!-- table: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def markdown(head: list[str], rows: list[list[str]]) -> str:
    """A table with its first column to the left and the others to the right."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def environment_line(report: dict[str, Any]) -> str:
    """One line on where and when."""
    e = report["environment"]
    versions = ", ".join(f"{name} {version}" for name, version in e["versions"].items())
    load = "/".join(str(value) for value in e["load"])
    return (
        f"{e['device']}, {e['threads']} thread(s), load {load} on {e['cores']} cores, {e['date']}, "
        f"commit {e['commit']}; {versions}."
    )


def ratio_text(ratio: Ratio) -> str:
    """The speedup with the ratio of minima beside it."""
    return f"{ratio} ({ratio.minima:.2f})" if not ratio.noisy else str(ratio)


def engine(report: dict[str, Any]) -> str:
    """Throughput of every arm beside plain torch's."""
    parts = []
    for name, found in report["workloads"].items():
        arms = found["arms"]
        base = arms["plain"]["seconds"]
        rows = [
            [
                arm,
                own["setting"],
                f"{found['pairs'] / min(own['seconds']):.1f}",
                ratio_text(speedup(own["seconds"], base)),
                f"{own['gate']['from_float64']:.1e}",
                f"{own['gate']['from_plain']:.1e}",
            ]
            for arm, own in arms.items()
        ]
        head = [
            "arm",
            "setting",
            "pairs/s",
            "over plain (minima)",
            "error, float64",
            "error, plain",
        ]
        failed = ", ".join(found["failed"]) or "none"
        parts.append(
            f"**{name}**, {found['pairs']} pairs. Failed the gate: {failed}.\n\n"
            + "\n\n".join([markdown(head, rows), environment_line(found)])
        )
    return "\n\n".join(parts)


BEST = (
    "GradCache (best)",
    "sentence-transformers (best)",
    "sentence-transformers, by tokens (best)",
)
DEFAULT = ("GradCache (default)", "sentence-transformers (default)")
AS_USED = ("sentence-transformers, published model (default)",)
AS_USED_BEST = (
    "GradCache, published model (best)",
    "sentence-transformers, published model (best)",
)
GOALS: tuple[tuple[str, str, tuple[str, ...], float | None], ...] = (
    ("W2", "polyqwen off (best)", AS_USED_BEST, 1.5),
    ("W2", "polyqwen off (best)", BEST, 1.5),
    ("W3", "polyqwen off (best)", AS_USED, 2.5),
    ("W3", "polyqwen off (best)", DEFAULT, 2.5),
    ("W3", "polyqwen off (best)", AS_USED_BEST, 1.4),
    ("W3", "polyqwen off (best)", BEST, 1.4),
    ("W2", "polyqwen cached, chunk 8", ("sentence-transformers, chunk 8",), 1.25),
    ("W3", "polyqwen cached (best)", BEST, None),
)


def goals(report: dict[str, Any]) -> str:
    """Our speedup over the fastest of the named peers, and whether the goal is met."""
    rows = []
    for workload, own, peers, goal in GOALS:
        arms = report["workloads"].get(workload, {}).get("arms", {})
        mine = _arm(arms, own)
        there = [found for peer in peers if (found := _arm(arms, peer))]
        if mine is None or not there:
            continue
        seconds = arms[mine]["seconds"]
        slow = min(there, key=lambda peer: min(arms[peer]["seconds"]))
        ratio = speedup(seconds, arms[slow]["seconds"])
        met = "–" if goal is None else "unknown" if ratio.noisy else _met(ratio.median >= goal)
        asked = "–" if goal is None else f"≥ {goal}x"
        rows.append([f"{workload}: {mine} over {slow}", ratio_text(ratio), asked, met])
    return markdown(["what", "median (minima)", "goal", ""], rows)


def _arm(arms: dict[str, Any], name: str) -> str | None:
    """An arm whose default is its best setting goes by its best alone."""
    for known in (name, name.replace("default", "best")):
        if known in arms:
            return known
    return None


def _met(reached: bool) -> str:
    return "met" if reached else "missed"


def memory(report: dict[str, Any]) -> str:
    """Peak by batch size."""
    rows = [
        [
            mode,
            str(row["pairs"]),
            f"{row['peak'] / 2**20:.0f}",
            f"{row['features'] / 2**20:.0f}",
            f"{(row['peak'] - row['features']) / 2**20:.0f}",
        ]
        for mode, found in report["modes"].items()
        for row in found["rows"]
    ]
    ends = [
        f"{mode}: largest over smallest {found['growth']:.2f}, "
        f"{found['bytes_per_pair'] / 1024:.1f} KiB per pair."
        for mode, found in report["modes"].items()
    ]
    table = markdown(["mode", "pairs", "peak MiB", "of it features", "rest"], rows)
    return "\n\n".join([table, " ".join(ends), environment_line(report)])


def overhead(report: dict[str, Any]) -> str:
    """Milliseconds of Lightning's loop."""
    rows = [
        [
            name,
            f"{own['plain_ms']:.2f}",
            f"{own['added_ms']:.2f}",
            f"{own['quartiles_ms'][0]:.2f} to {own['quartiles_ms'][1]:.2f}",
            f"{own['added_minima_ms']:.2f}",
        ]
        for name, own in ((name, report[name]) for name in ("polyqwen", "bare"))
    ]
    head = ["module", "plain step ms", "added ms, median", "quartiles", "of minima"]
    return "\n\n".join([markdown(head, rows), environment_line(report)])


def kernels(report: dict[str, Any]) -> str:
    """Our parts over Hugging Face's, with a second copy of ours as the resolution."""
    rows = [
        [
            name,
            f"{1e3 * min(own['published']):.1f}",
            f"{1e3 * min(own['ours']):.1f}",
            ratio_text(speedup(own["ours"], own["published"])),
            ratio_text(speedup(own["ours"], own["ours again"])),
        ]
        for name, own in report["cases"].items()
    ]
    head = ["part", "published ms", "ours ms", "speedup (minima)", "ours over ours"]
    return "\n\n".join([markdown(head, rows), environment_line(report)])


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


TABLES: dict[str, tuple[str, Callable[[dict[str, Any]], str]]] = {
    "engine": ("engine.json", engine),
    "goals": ("engine.json", goals),
    "memory": ("memory.json", memory),
    "overhead": ("overhead.json", overhead),
    "kernels": ("kernels.json", kernels),
    "gpu": ("gpu.json", gpu),
}


def filled(page: str, results: Path) -> str:
    """The page with every marked table made anew.

    Raises:
        ValueError: a marker names a table that there is not.
    """

    def table(match: re.Match[str]) -> str:
        name = match[2]
        if name not in TABLES:
            raise ValueError(f"there is no table {name!r}; choose one of {', '.join(TABLES)}")
        file, make = TABLES[name]
        path = results / file
        text = make(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else MISSING
        return f"{match[1]}\n{text}\n\n{match[3]}"

    return MARKED.sub(table, page)


def main() -> None:
    """Fills the page in, or checks that it is."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--check", action="store_true")
    arguments = parser.parse_args()
    page = PAGE.read_text(encoding="utf-8")
    new = filled(page, RESULTS)
    if arguments.check and new != page:
        raise SystemExit("docs/performance.md is not what benchmarks/results say: run the script")
    PAGE.write_text(new, encoding="utf-8")


if __name__ == "__main__":
    main()
