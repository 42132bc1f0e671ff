"""The tasks' weights, and why they moved: what the strategy saw at each update."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from polyqwen.report.format_values import MISSING, number
from polyqwen.report.page.charts import Chart, Charts, drawn
from polyqwen.runs.history import Series, by_task
from polyqwen.runs.run_folder import RunFolder
from polyqwen.weighting.weight_update import WeightUpdate

SHOWN = 40  # updates in full
MOVED = 0.005  # relative change below which a weight stands still
SEEN = {
    "mean_loss": ("Mean loss of the window", "what the strategy is told of each task"),
    "relative_loss": ("The same relative to chance", ""),
    "gradient_norm": ("Gradient norm", "at the place the strategy looks at"),
    "cosine": ("Mean cosine to the other tasks' gradients", "below 0: against the others"),
    "rows": ("Rows of the window", ""),
    "base": ("Weight before boost", "what the strategy decided"),
}


def weights(run: RunFolder, charts: Charts) -> dict[str, Any] | None:
    """Weights as applied, the strategy's view, and every update with its reason."""
    applied = by_task(run.history, "weight")
    share = by_task(run.history, "train/share")
    if not applied:
        return None
    figures = [
        charts.lines("Weight as applied", applied, "λ · boost", zero=True),
        charts.lines("Share of the total loss", share, zero=True, smooth=True),
    ]
    return {
        "ways": _ways(run.updates),
        "charts": drawn(figures),
        "seen": _seen(run, charts),
        "updates": [_update(update) for update in _chosen(run.updates)],
    }


def _ways(updates: Sequence[WeightUpdate]) -> list[str]:
    """Each task's way in one clause, with its largest step."""
    lines = []
    for task in updates[0].old if updates else ():
        moves = [(u.new[task] / u.old[task], u) for u in updates if u.old.get(task)]
        if not moves:
            continue
        ratio, update = max(moves, key=lambda move: abs(move[0] - 1.0))
        way = f"{task}: {updates[0].old[task]:.3f} → {updates[-1].new[task]:.3f}"
        if abs(ratio - 1.0) >= MOVED:
            loss = update.mean_losses.get(task)
            because = "" if loss is None else f", when its mean loss was {loss:.3f}"
            way += f"; most at step {update.step} (× {ratio:.2f}{because})"
        lines.append(way)
    return lines


def _seen(run: RunFolder, charts: Charts) -> list[Chart]:
    """Everything that updates log by task; known names first, in the order of the table above."""
    found = {key.split("/")[1] for key in run.history if key.startswith("weighting/")}
    order = [name for name in SEEN if name in found] + sorted(found - set(SEEN))
    figures = []
    for name in order:
        title, note = SEEN.get(name, (name.replace("_", " "), ""))
        figures.append(charts.lines(title, by_task(run.history, f"weighting/{name}"), note))
    return drawn(figures)


def _chosen(updates: Sequence[WeightUpdate]) -> list[WeightUpdate]:
    """All of a few; of many those that moved a weight most, in order, with first and last."""
    if len(updates) <= SHOWN:
        return list(updates)
    order = sorted(range(1, len(updates) - 1), key=lambda i: -_size(updates[i]))
    keep = sorted({0, len(updates) - 1, *order[: SHOWN - 2]})
    return [updates[i] for i in keep]


def _size(update: WeightUpdate) -> float:
    return max(
        (abs(update.new[t] / old - 1.0) for t, old in update.old.items() if old), default=0.0
    )


def _update(update: WeightUpdate) -> dict[str, Any]:
    """What moved, why, and a table of what the strategy knew of each task."""
    causes = list(update.causes)
    lines = [
        [
            task,
            f"{old:.3f} → {update.new[task]:.3f}",
            number(update.mean_losses.get(task)),
            number(update.relative_losses.get(task)),
            str(update.counts.get(task, 0)),
            *(number(update.causes[name].get(task), 4) for name in causes),
            update.notes.get(task, ""),
        ]
        for task, old in update.old.items()
    ]
    moves = [
        (task, update.new[task], update.new[task] > old)
        for task, old in update.old.items()
        if abs(update.new[task] - old) >= MOVED * max(abs(old), 1e-9)
    ]
    return {
        "step": update.step,
        "reason": update.reason,
        "moves": moves,
        "headings": ["task", "weight", "mean loss", "relative", "rows", *causes, "note"],
        "lines": lines,
    }


PREFIX = "gradient/cosine/"
AGAINST, TOGETHER = (214, 96, 77), (67, 147, 195)  # of the diverging scale RdBu


def conflicts(run: RunFolder, charts: Charts) -> dict[str, Any] | None:
    """Means over the run as a heat map's cells, the worst pair, and the pairs over the steps."""
    pairs = {
        tuple(key.removeprefix(PREFIX).split("/")): series
        for key, series in run.history.items()
        if key.startswith(PREFIX)
    }
    pairs = {pair: series for pair, series in pairs.items() if len(pair) == 2}
    if not pairs:
        return None
    means = {pair: _mean(series) for pair, series in pairs.items()}
    lowest = min(means, key=lambda pair: means[pair])
    tasks = [t for t in run.tasks if any(t in pair for pair in pairs)]
    lines = {f"{a} · {b}": series for (a, b), series in pairs.items()}
    return {
        "lowest": lowest,
        "mean": means[lowest],
        "negative": _negative(pairs[lowest]),
        "cells": {a: [_cell(means, a, b) for b in tasks] for a in tasks},
        "chart": charts.lines("Cosine over the run", lines, "above 0: together", zero=True),
    }


def _cell(means: Mapping[tuple[str, ...], float], a: str, b: str) -> tuple[str, str]:
    """Text and colour of a cell; a task beside itself says nothing."""
    if a == b:
        return "", ""
    value = means.get((a, b), means.get((b, a), math.nan))
    if math.isnan(value):
        return MISSING, ""
    end = TOGETHER if value > 0 else AGAINST
    mix = [round(247 + (c - 247) * min(1.0, abs(value) * 1.5)) for c in end]
    return f"{value:+.2f}", f"rgb({mix[0]},{mix[1]},{mix[2]})"


def _mean(series: Series) -> float:
    known = [value for value in series.values if math.isfinite(value)]
    return sum(known) / len(known) if known else math.nan


def _negative(series: Series) -> float:
    return sum(value < 0.0 for value in series.values) / max(len(series.values), 1)
