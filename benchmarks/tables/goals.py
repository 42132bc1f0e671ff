"""Table of the goals: how much faster than whom on which workload."""

from typing import Any

from benchmarks.suite.runner import speedup
from benchmarks.tables.text import markdown, ratio_text

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
