"""Table of training steps: ours and the peers' beside plain torch's."""

from typing import Any

from benchmarks.suite.runner import speedup
from benchmarks.tables.text import environment_line, markdown, ratio_text


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
