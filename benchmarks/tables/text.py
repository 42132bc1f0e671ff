"""Words and numbers as the tables have them."""

from typing import Any

from benchmarks.suite.runner import Ratio

MISSING = "Not yet measured."


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
