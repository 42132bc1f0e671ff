"""Losses and their parts, validation metrics, the embedding space, schedules."""

from polyqwen.report.curves import LABELS, SIZES
from polyqwen.report.page.charts import Charts, grid
from polyqwen.report.page.markup import Html, tag
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


def losses(run: RunFolder, charts: Charts) -> list[Html]:
    """All tasks together, then each with its parts; scalars are means of a window."""
    own = by_task(run.history, "train/loss")
    relative = _relative(run, own)
    total = run.history.get("train/loss")
    first = [
        charts.lines("Loss of each task", own, "before weighting", smooth=True),
        charts.lines(
            "Loss relative to chance", relative, "1 is a model that knows nothing", smooth=True
        ),
        charts.lines("Total", {"total": total} if total else {}, "weights included", smooth=True),
    ]
    parts = []
    for task in own:
        pieces = by_task(run.history, f"train/loss/{task}")
        if len(pieces) > 1:
            parts.append(charts.lines(f"{task}: parts of its loss", pieces, smooth=True))
    shown = [grid(first)]
    if any(parts):
        shown.append(tag("details", tag("summary", "Parts of the losses"), grid(parts)))
    return [item for item in shown if item]


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


def validation(run: RunFolder, charts: Charts) -> list[Html]:
    """Every metric of the validation rows over the run, best known first."""
    return _metrics(run, charts, "val")


def space(run: RunFolder, charts: Charts) -> list[Html]:
    """What the embeddings look like as a cloud."""
    return _metrics(run, charts, "space")


def _metrics(run: RunFolder, charts: Charts, prefix: str) -> list[Html]:
    metrics = by_metric(run.history, prefix)
    order = [name for name in LABELS if name in metrics]
    order += sorted(set(metrics) - set(LABELS) - set(SIZES))
    score = run.history.get(f"{prefix}/score")
    figures = [charts.lines("Score, mean of tasks", {"score": score} if score else {})]
    figures += [
        charts.lines(LABELS.get(name, name), metrics[name], HINTS.get(name, "")) for name in order
    ]
    shown = grid(figures)
    return [shown] if shown else []


def schedules(run: RunFolder, charts: Charts) -> list[Html]:
    """What callbacks set from outside."""
    found = by_task(run.history, "schedule")
    rates = {name.removeprefix("lr_"): s for name, s in found.items() if name.startswith("lr_")}
    figures = [charts.lines("Learning rates", rates, zero=True)]
    figures += [
        charts.lines(name.replace("_", " "), {name: series})
        for name, series in found.items()
        if not name.startswith("lr_")
    ]
    shown = grid(figures)
    return [shown] if shown else []
