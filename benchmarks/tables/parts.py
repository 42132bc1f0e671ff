"""Tables of one part of a step each: memory, Lightning's loop, kernels."""

from typing import Any

from benchmarks.suite.runner import speedup
from benchmarks.tables.text import environment_line, markdown, ratio_text


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
