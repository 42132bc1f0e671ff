"""How far the tasks' gradients at the shared head point the same way."""

import math

from polyqwen.report.page.charts import Charts, grid
from polyqwen.report.page.markup import Html, tag
from polyqwen.runs.history import Series
from polyqwen.runs.run_folder import RunFolder

PREFIX = "gradient/cosine/"
AGAINST, TOGETHER = (214, 96, 77), (67, 147, 195)  # of the diverging scale RdBu


def conflicts(run: RunFolder, charts: Charts) -> list[Html]:
    """A heat map of means over the run, and the pairs over its steps."""
    pairs = {
        tuple(key.removeprefix(PREFIX).split("/")): series
        for key, series in run.history.items()
        if key.startswith(PREFIX)
    }
    pairs = {pair: series for pair, series in pairs.items() if len(pair) == 2}
    if not pairs:
        return []
    means = {pair: _mean(series) for pair, series in pairs.items()}
    lowest = min(means, key=lambda pair: means[pair])
    share = _negative(pairs[lowest])
    note = (
        "Cosine of two tasks' gradients at the shared head, before weighting: below 0 a step for "
        f"one undoes the other's. Lowest: {lowest[0]} and {lowest[1]}, mean {means[lowest]:+.2f}, "
        f"negative in {share:.0%} of the measurements."
    )
    lines = {f"{a} · {b}": series for (a, b), series in pairs.items()}
    chart = charts.lines("Cosine over the run", lines, "above 0: together", zero=True)
    tasks = [t for t in run.tasks if any(t in pair for pair in pairs)]
    return [tag("p", note, cls="note"), grid([_heat(tasks, means), chart])]


def _heat(tasks: list[str], means: dict[tuple[str, ...], float]) -> Html:
    head = tag("tr", tag("th"), *(tag("th", task, scope="col") for task in tasks))
    rows = []
    for a in tasks:
        cells = [
            _cell(means.get((a, b), means.get((b, a)))) if a != b else tag("td") for b in tasks
        ]
        rows.append(tag("tr", tag("th", a, scope="row"), *cells))
    grid_ = tag("table", tag("thead", head), tag("tbody", *rows), cls="heat")
    caption = tag("figcaption", tag("b", "Mean cosine"), tag("small", "red: against each other"))
    return tag("figure", caption, tag("div", grid_, cls="wide"), cls="wide-chart")


def _cell(value: float | None) -> Html:
    if value is None or math.isnan(value):
        return tag("td", "–")
    end = TOGETHER if value > 0 else AGAINST
    mix = [round(247 + (c - 247) * min(1.0, abs(value) * 1.5)) for c in end]
    return tag("td", f"{value:+.2f}", style=f"background:rgb({mix[0]},{mix[1]},{mix[2]})")


def _mean(series: Series) -> float:
    known = [value for value in series.values if math.isfinite(value)]
    return sum(known) / len(known) if known else math.nan


def _negative(series: Series) -> float:
    return sum(value < 0.0 for value in series.values) / max(len(series.values), 1)
