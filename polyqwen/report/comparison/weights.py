"""Task weights over time, a small panel per variant."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from polyqwen.report.comparison.figures import short
from polyqwen.report.figure_style import FAINT, figure_style, task_colours
from polyqwen.runs.history import Series, by_task
from polyqwen.runs.run_folder import RunFolder

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LEAST, MOST = 0.02, 50.0  # drawn; the scale is logarithmic


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
                values = [min(max(value, LEAST), MOST) for value in series.values]
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
