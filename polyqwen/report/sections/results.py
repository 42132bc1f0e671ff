"""What the model can do on the test split, beside the untrained one and a random order."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from polyqwen.report.curves import LABELS
from polyqwen.report.page.markup import Html, table, tag
from polyqwen.runs.run_folder import RunFolder
from polyqwen.runs.scores import ZERO_BY_CHANCE, main_metric

MODELS = ("trained", "untrained", "chance")


def main_values(run: RunFolder) -> dict[str, dict[str, float | None]]:
    """Task -> ``trained``, ``untrained`` and ``chance`` of its main metric."""
    found = {}
    for task, metrics in (run.results.get("trained") or {}).items():
        name = main_metric(metrics)
        if name is not None and "/" not in task:
            found[task] = {of: _value(run, of, task, name) for of in MODELS}
    return found


def mean_score(run: RunFolder, of: str) -> float | None:
    """The mean over tasks of their main metrics; None if one was not measured."""
    values = [known for task in main_values(run).values() if (known := task[of]) is not None]
    complete = values and len(values) == len(main_values(run))
    return sum(values) / len(values) if complete else None


def _value(run: RunFolder, of: str, task: str, name: str) -> float | None:
    metrics = (run.results.get(of) or {}).get(task)
    if metrics is None:
        return None
    value = metrics.get(name, 0.0 if of == "chance" and name in ZERO_BY_CHANCE else math.nan)
    return float(value) if value is not None and math.isfinite(value) else None


def results(run: RunFolder) -> list[object]:
    """A bar per task, then every number."""
    values = main_values(run)
    if not run.results.get("trained"):
        return []
    note = (
        "Test split. The bar is the trained model, the tall tick the same model before its first "
    )
    note += "step, the short one a random order. A correlation below 0 has no bar."
    shown: list[object] = [tag("p", note, cls="note"), _bars(run, values), _gains(run)]
    shown.append(tag("details", tag("summary", "Every metric"), *_all(run)))
    forgetting = run.results.get("forgetting")
    if forgetting and forgetting.get("end") is not None:
        lost = forgetting["at_switch"] - forgetting["end"]
        word = "lost" if lost > 0 else "gained"
        shown.append(
            tag(
                "p",
                f"Since the phase switch {forgetting['task']} has {word} {abs(lost):.3f} of its "
                f"validation {forgetting['metric']}: {forgetting['at_switch']:.3f} then, "
                f"{forgetting['end']:.3f} at the end.",
            )
        )
    return shown


def _bars(run: RunFolder, values: Mapping[str, Mapping[str, float | None]]) -> Html:
    cells = []
    for task, of in values.items():
        metric = main_metric(run.results["trained"][task]) or ""
        name = tag("span", task, " ", tag("small", LABELS.get(metric, metric)), cls="name")
        numbers = tag("b", number(of["trained"])), tag("small", f" from {number(of['untrained'])}")
        cells += [name, bar(of), tag("span", *numbers, cls="value")]
    return tag("div", *cells, cls="bars")


def bar(
    of: Mapping[str, float | None], low: float | None = None, high: float | None = None
) -> Html:
    """A bar from 0 to 1 with ticks, and a line over an interval if there is one."""
    told = ", ".join(f"{name} {number(value)}" for name, value in of.items())
    trained = of.get("trained")
    parts = [tag("i", style=f"width:{_percent(trained)}%")]
    for name in ("untrained", "chance"):
        if of.get(name) is not None:
            style = f"left:calc({_percent(of[name])}% - 1px)"
            parts.append(tag("u", cls=name, style=style))
    if low is not None and high is not None and math.isfinite(low) and math.isfinite(high):
        left, right = _percent(low), _percent(high)
        parts.append(tag("s", style=f"left:{left}%;width:{right - left:.2f}%"))
    return tag("div", *parts, cls="track", title=told, role="img", aria_label=told)


def _percent(value: float | None) -> float:
    return 0.0 if value is None or math.isnan(value) else round(100 * min(1.0, max(0.0, value)), 2)


def number(value: Any, digits: int = 3) -> str:
    """A dash for what is missing or undefined."""
    known = isinstance(value, int | float) and math.isfinite(value)
    return f"{value:.{digits}f}" if known else "–"


def _gains(run: RunFolder) -> Html | None:
    """What `evaluate.py` adds: by how much the training beats no training, with intervals."""
    if run.evaluation.get("split") != "test" or run.evaluation.get("data_root"):
        return None
    gains = run.evaluation.get("advantage_over_untrained") or {}
    lines: list[Sequence[object]] = [
        [task, g["metric"], f"{g['difference']:+.3f}", f"{g['low']:+.3f} … {g['high']:+.3f}"]
        for task, g in gains.items()
    ]
    if not lines:
        return None
    heads = ["task", "metric", "gain over untrained", "95 % interval, paired bootstrap"]
    return table(heads, lines, left=2)


def _all(run: RunFolder) -> list[Html]:
    """One table per view; a view is a task, or a task of which something was taken away."""
    found = []
    for view, metrics in run.results["trained"].items():
        lines = [
            [name, *(number((run.results.get(m) or {}).get(view, {}).get(name), 4) for m in MODELS)]
            for name in metrics
        ]
        found += [tag("h3", view), table(["metric", *MODELS], lines)]
    return found
