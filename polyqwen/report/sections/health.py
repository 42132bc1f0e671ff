"""How fast the run went, and whether anything went wrong on the way."""

from polyqwen.report.page.charts import Charts, grid
from polyqwen.report.page.markup import Html, tag
from polyqwen.runs.history import Series
from polyqwen.runs.run_folder import RunFolder


def health(run: RunFolder, charts: Charts) -> list[Html]:
    """Throughput, gradient norms beside the clip, skipped steps, warnings of the log."""
    figures = [
        charts.lines("Rows per second", _one(run, "throughput/rows_per_second"), zero=True),
        charts.lines(
            "Seconds per step",
            _one(run, "throughput/seconds_per_step"),
            "loading included, validation not",
            zero=True,
        ),
        charts.lines(
            "Gradient norm",
            _one(run, "train/gradient_norm") | _one(run, "schedule/gradient_clip"),
            "before clipping; above the clip it is cut",
            zero=True,
        ),
    ]
    shown = [grid(figures), tag("p", _skipped(run))]
    if run.warnings:
        lines = tag("pre", "\n".join(run.warnings))
        head = tag("summary", f"Warnings of the log ({len(run.warnings)})")
        shown.append(tag("details", head, tag("div", lines, cls="wide")))
    return shown if run.history else []


def _skipped(run: RunFolder) -> str:
    series = run.history.get("train/skipped_steps")
    if not series:
        return "No step was skipped: every gradient norm was finite."
    first = ", ".join(map(str, series.steps[:20])) + (", …" if len(series.steps) > 20 else "")
    return f"Skipped for a gradient norm that was not finite: {int(series.values[-1])} ({first})."


def _one(run: RunFolder, key: str) -> dict[str, Series]:
    series = run.history.get(key)
    return {key.rpartition("/")[2].replace("_", " "): series} if series else {}
