"""Losses and their parts, validation metrics, the embedding space, schedules, speed, health."""

from collections.abc import Mapping
from typing import Any

from polyqwen.metrics.gap_reference import reference_gap
from polyqwen.report.curves import LABELS, in_order
from polyqwen.report.page.charts import Chart, Charts, drawn
from polyqwen.runs.history import Series, by_metric, by_task
from polyqwen.runs.run_folder import RunFolder

HINTS = {
    "gap": "matching minus non-matching cosine: rises",
    "modality_gap": "distance between the means of queries and documents",
    "effective_rank": "falling towards 1: collapse",
    "uniformity": "low is good",
    "alignment": "low is good",
    "forgetting": "since the phase switch; below 0 it gained",
}
REFERENCE = "grey: what the viPolyQwen paper (5.1) calls healthy up to step 2000"


def losses(run: RunFolder, charts: Charts) -> dict[str, list[Chart]] | None:
    """All tasks together, then each with its parts; scalars are means of a window."""
    own = by_task(run.history, "train/loss")
    known = "1 is a model that knows nothing"
    first = [
        charts.lines("Loss of each task", own, "before weighting", smooth=True),
        charts.lines("Loss relative to chance", _relative(run, own), known, smooth=True),
        charts.lines("Total", _one(run, "train/loss", "total"), "weights included", smooth=True),
    ]
    parts = {task: by_task(run.history, f"train/loss/{task}") for task in own}
    apart = [
        charts.lines(f"{task}: parts of its loss", pieces, smooth=True)
        for task, pieces in parts.items()
        if len(pieces) > 1
    ]
    shown = {"charts": drawn(first), "parts": drawn(apart)}
    return shown if any(shown.values()) else None


def _relative(run: RunFolder, own: dict[str, Series]) -> dict[str, Series]:
    found = {}
    for task, series in own.items():
        chance = run.history.get(f"train/chance/{task}", Series([], []))
        at = dict(zip(chance.steps, chance.values, strict=True))
        pairs = [
            (step, value / at[step])
            for step, value in zip(series.steps, series.values, strict=True)
            if at.get(step, 0.0) > 0.0
        ]
        if pairs:
            found[task] = Series([p[0] for p in pairs], [p[1] for p in pairs])
    return found


def validation(run: RunFolder, charts: Charts) -> list[Chart]:
    """Every metric of the validation rows over the run, best known first."""
    return _metrics(run, charts, "val")


def space(run: RunFolder, charts: Charts) -> list[Chart]:
    """What the embeddings look like as a cloud."""
    gaps = with_reference(by_task(run.history, "train/gap"))
    title = "Similarity gap of training batches (cosine)"
    first = charts.lines(title, gaps, f"{HINTS['gap']}; {REFERENCE}", smooth=True)
    return [*drawn([first]), *_metrics(run, charts, "space")]


def with_reference(gaps: Mapping[str, Series]) -> dict[str, Series]:
    """Measured gaps and the paper's, over the steps that were measured; nothing without any."""
    steps = [step for series in gaps.values() for step in series.steps]
    reference = reference_gap(min(steps), max(steps)) if steps else {}
    return dict(gaps) | {name: Series(*line) for name, line in reference.items()}


def _metrics(run: RunFolder, charts: Charts, prefix: str) -> list[Chart]:
    metrics = by_metric(run.history, prefix)
    score = _one(run, f"{prefix}/score", "score")
    figures = [charts.lines("Score, mean of tasks", score)]
    for name in in_order(metrics):
        lines, hint = metrics[name], HINTS.get(name, "")
        if name == "gap":
            lines, hint = with_reference(lines), f"{hint}; {REFERENCE}"
        figures.append(charts.lines(LABELS.get(name, name), lines, hint))
    return drawn(figures)


def schedules(run: RunFolder, charts: Charts) -> list[Chart]:
    """What callbacks set from outside."""
    found = by_task(run.history, "schedule")
    rates = {name.removeprefix("lr_"): s for name, s in found.items() if name.startswith("lr_")}
    figures = [charts.lines("Learning rates", rates, zero=True)]
    figures += [
        charts.lines(name.replace("_", " "), {name: series})
        for name, series in found.items()
        if not name.startswith("lr_")
    ]
    return drawn(figures)


def health(run: RunFolder, charts: Charts) -> dict[str, Any] | None:
    """Throughput, gradient norms beside the clip, and skipped steps."""
    rows, seconds = "throughput/rows_per_second", "throughput/seconds_per_step"
    norm, clip = "train/gradient_norm", "schedule/gradient_clip"
    norms = _one(run, norm, "gradient norm") | _one(run, clip, "gradient clip")
    loading = "loading included, validation not"
    cut = "before clipping; above the clip it is cut"
    figures = [
        charts.lines("Rows per second", _one(run, rows, "rows per second"), zero=True),
        charts.lines(
            "Seconds per step", _one(run, seconds, "seconds per step"), loading, zero=True
        ),
        charts.lines("Gradient norm", norms, cut, zero=True),
    ]
    return {"charts": drawn(figures), "skipped": _skipped(run)} if run.history else None


def _skipped(run: RunFolder) -> str:
    skipped = run.history.get("train/skipped_steps")
    dropped = run.history.get("train/dropped_micro_batches")
    said = "No step was skipped: every gradient norm was finite."
    if skipped:
        said = f"Skipped steps, losses or gradients not finite: {_counted(skipped)}."
    if dropped:
        said += f" Dropped micro-batches, losses not finite: {_counted(dropped)}."
    return said


def _counted(series: Series) -> str:
    """The last count, and the first steps at which it rose."""
    first = ", ".join(map(str, series.steps[:20])) + (", …" if len(series.steps) > 20 else "")
    return f"{int(series.values[-1])} (at steps {first})"


def _one(run: RunFolder, key: str, name: str) -> dict[str, Series]:
    """A series under the name that the legend gives it; nothing if it was not logged."""
    series = run.history.get(key)
    return {name: series} if series else {}
