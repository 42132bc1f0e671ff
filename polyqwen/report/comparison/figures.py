"""Figures of a comparison: bars per task, trade-offs, and task weights over time."""

import math
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import TYPE_CHECKING, NamedTuple

from polyqwen.metrics.paired import Estimate
from polyqwen.report.comparison.board import Board
from polyqwen.report.figure_style import FAINT, INK, MUTED, figure_style, task_colours
from polyqwen.report.results_table import ALL_HEADINGS
from polyqwen.runs.history import Series, by_task
from polyqwen.runs.run_folder import RunFolder

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

BAR, BASELINE = "#9DB8CC", "#0072B2"
BAR_HEIGHT = 0.24  # inches
LONGEST = 32  # characters of a name
LOWEST_WEIGHT, HIGHEST_WEIGHT = 0.02, 50.0  # drawn; the scale is logarithmic


def bars(board: Board) -> "Figure":
    """The score and each task's main metric, with intervals, the untrained model and chance."""
    from matplotlib.figure import Figure

    panels = ["score", *board.tasks]
    height = 1.3 + BAR_HEIGHT * len(board.rows)
    with figure_style():
        figure = Figure(figsize=(2.0 + 2.0 * len(panels), height), layout="constrained")
        axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
        names = [short(row.name) for row in board.rows]
        for ax, panel in zip(axes, panels, strict=True):
            whole = panel == "score"
            values = [row.score if whole else row.tasks[panel] for row in board.rows]
            _bars(ax, values, [row.name == board.baseline for row in board.rows])
            for reference, style in ((board.untrained, "--"), (board.chance, ":")):
                value = reference.score if whole else reference.tasks[panel]
                if not math.isnan(value.mean):
                    ax.axvline(value.mean, color=MUTED, linewidth=1, linestyle=style)
            metric = "" if whole else f"\n{ALL_HEADINGS[board.metrics[panel]]}"
            ax.set_title(f"{panel}{metric}")
        axes[0].set_yticks(range(len(names)), names)
        axes[0].invert_yaxis()
        axes[0].tick_params(axis="y", colors=INK, length=0)
        figure.supxlabel("dashed: untrained; dotted: chance; whiskers: 95 % over seeds", fontsize=8)
        return figure


def _bars(ax: "Axes", values: Sequence[Estimate], chosen: Sequence[bool]) -> None:
    colours = [BASELINE if one else BAR for one in chosen]
    ax.barh(range(len(values)), [v.mean for v in values], color=colours, height=0.72)
    halves = [0.0 if math.isnan(v.low) else v.half for v in values]
    places = list(range(len(values)))
    ax.errorbar([v.mean for v in values], places, xerr=halves, fmt="none", ecolor=INK, lw=0.9)
    top = max((v.mean for v in values if not math.isnan(v.mean)), default=1.0)
    ax.set_xlim(min(0.0, *(v.mean for v in values)), max(1.25 * top, 1e-3))
    ax.grid(axis="y", visible=False)
    for place, value, one in zip(places, values, chosen, strict=True):
        if not math.isnan(value.mean):
            ax.annotate(
                f"{value.mean:.3f}",
                (0.0, place),
                (3, 0),
                textcoords="offset points",
                va="center",
                fontsize=7,
                color="white" if one and value.mean > top / 4 else INK,
            )


class TradeOff(NamedTuple):
    """Two quantities of every variant, of which one costs the other.

    Attributes:
        title: of the panel.
        across: what the horizontal axis shows.
        up: what the vertical axis shows.
        points: of each row; NaN for what was not measured.
    """

    title: str
    across: str
    up: str
    points: list[tuple[float, float]]


def trade_off(board: Board) -> "Figure | None":
    """A panel for each of `trade_offs`; variants are numbered by their rank.

    None for a single task without timings.
    """
    from matplotlib.figure import Figure

    drawn = trade_offs(board)
    if not drawn:
        return None
    with figure_style():
        figure = Figure(figsize=(3.0 + 3.5 * len(drawn), 4.4), layout="constrained")
        axes = figure.subplots(1, len(drawn), squeeze=False)[0]
        for ax, panel in zip(axes, drawn, strict=True):
            ax.set(title=panel.title, xlabel=panel.across, ylabel=panel.up)
            _scatter(ax, board, panel.points)
        figure.legend(
            [_dot(row.name == board.baseline) for row in board.rows],
            [f"{rank} {short(row.name)}" for rank, row in enumerate(board.rows, start=1)],
            loc="outside right center",
            fontsize=7,
            handletextpad=0.2,
        )
        return figure


def trade_offs(board: Board) -> list[TradeOff]:
    """The first task against the mean of the others, and cost against score, as far as known."""
    first, *others = board.tasks
    tasks = [
        (fmean(row.tasks[t].mean for t in others) if others else math.nan, row.tasks[first].mean)
        for row in board.rows
    ]
    across = f"mean main metric of {', '.join(others)}"
    up = f"{first}, {ALL_HEADINGS[board.metrics[first]]}"
    cost = "seconds per step, relative to the baseline"
    costs = [(row.cost, row.score.mean) for row in board.rows]
    panels = [
        TradeOff("trade-off between tasks", across, up, tasks),
        TradeOff("trade-off between cost and score", cost, "score", costs),
    ]
    return [panel for panel in panels if not all(math.isnan(x) for x, _ in panel.points)]


def _scatter(ax: "Axes", board: Board, points: Sequence[tuple[float, float]]) -> None:
    for rank, (row, (x, y)) in enumerate(zip(board.rows, points, strict=True), start=1):
        if math.isnan(x) or math.isnan(y):
            continue
        chosen = row.name == board.baseline
        ax.plot(x, y, "o", color=BASELINE if chosen else BAR, markersize=13, alpha=0.85)
        colour = "white" if chosen else INK
        ax.annotate(str(rank), (x, y), ha="center", va="center", fontsize=7.5, color=colour)
    ax.margins(0.1)


def _dot(chosen: bool) -> "Line2D":
    from matplotlib.lines import Line2D

    colour = BASELINE if chosen else BAR
    return Line2D([], [], marker="o", linestyle="", color=colour, markersize=6)


def short(name: str) -> str:
    """Names of variants found by their settings can be long; the tables have them whole."""
    return name if len(name) <= LONGEST else f"{name[: LONGEST - 1]}…"


def weight_panels(
    variants: Mapping[str, Sequence[RunFolder]], tasks: Sequence[str]
) -> "Figure | None":
    """One panel per variant: task weights as applied (λ · boost), a line per task and seed.

    None if no run has logged any.
    """
    from matplotlib.figure import Figure

    logged = {
        name: [by_task(run.history, "weight") for run in runs] for name, runs in variants.items()
    }
    logged = {name: runs for name, runs in logged.items() if any(runs)}
    if not logged:
        return None
    columns = min(4, len(logged))
    rows = -(-len(logged) // columns)
    colours = task_colours(tasks)
    with figure_style():
        figure = Figure(figsize=(2.9 * columns + 0.4, 1.75 * rows + 0.7), layout="constrained")
        grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).flatten()
        for ax, (name, runs) in zip(grid, logged.items(), strict=False):
            ax.set_title(short(name), fontsize=8)
            _lines(ax, runs, colours)
        _logarithmic(grid[0])
        for spare in grid[len(logged) :]:
            spare.set_axis_off()
        for ax in grid[max(0, len(logged) - columns) : len(logged)]:
            ax.set_xlabel("optimizer step", fontsize=8)
            ax.xaxis.set_tick_params(labelbottom=True)
        figure.supylabel("task weight λ · boost", fontsize=8)
        _legend(figure, colours)
        return figure


def _lines(ax: "Axes", runs: Sequence[Mapping[str, Series]], colours: Mapping[str, str]) -> None:
    ax.axhline(1.0, color=FAINT, linewidth=1)
    for run in runs:
        for task, series in run.items():
            if task in colours:
                values = [min(max(value, LOWEST_WEIGHT), HIGHEST_WEIGHT) for value in series.values]
                ax.plot(series.steps, values, color=colours[task], linewidth=1.1, alpha=0.7)
    ax.margins(x=0.01)


def _logarithmic(ax: "Axes") -> None:
    """The scale that all panels share, wide enough for constant weights to look constant."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    ax.set_yscale("log")
    ax.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    ax.yaxis.set_minor_locator(NullLocator())
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    low, high = ax.get_ylim()
    ax.set_ylim(min(low, 0.4), max(high, 2.5))


def _legend(figure: "Figure", colours: Mapping[str, str]) -> None:
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], color=colour) for colour in colours.values()]
    figure.legend(handles, list(colours), loc="outside lower center", ncols=len(colours))
