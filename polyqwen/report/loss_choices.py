"""Which losses or tasks a weighting chose when, and why, from a run's ``metrics.csv``."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from polyqwen.atomic_files import write_text
from polyqwen.report.choices_table import Choices, choices_table, mean_of, read_choices
from polyqwen.report.figure_style import MUTED, figure_style, panels, save, task_colours
from polyqwen.runs.history import Series

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NAMED = 7  # losses with a colour of their own
OTHERS = "#c8c8c8"


def write_choices(csv_path: Path, out: Path) -> list[Path]:
    """Writes ``choices.png`` and ``choices.md``, and returns where."""
    choices = read_choices(csv_path)
    table = Path(out) / "choices.md"
    write_text(table, choices_table(choices))
    return [plot_choices(choices, Path(out) / "choices.png"), table]


def plot_choices(choices: Choices, out: Path) -> Path:
    """Shares stacked over time, and each loss's agreement with the trusted rows beside it.

    A loss is drawn thin and dotted while it is switched off. Of many losses those with the largest
    shares have a colour of their own.
    """
    losses = sorted(choices.share, key=lambda loss: -mean_of(choices.share[loss]))
    named, others = losses[:NAMED], losses[NAMED:]
    colours = dict.fromkeys(others, OTHERS) | task_colours(named)
    with figure_style():
        figure, axes = panels(2, width=4.8, height=3.4)
        _stack(axes[0], choices.share, named, others, colours)
        for loss in [*others, *named]:
            if loss in choices.agreement:
                _agreement(axes[1], choices, loss, colours[loss])
        axes[0].set_title("Share of the step")
        axes[1].set_title("Agreement with the trusted rows")
        axes[1].set_ylabel("cosine; dotted while switched off")
        axes[1].axhline(0.0, color=MUTED, linewidth=1)
        for ax in axes:
            ax.set_xlabel("optimizer step")
            ax.margins(x=0.01)
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=min(len(labels), 6))
        return save(figure, out)


def _stack(
    ax: "Axes",
    share: Mapping[str, Series],
    named: list[str],
    others: list[str],
    colours: Mapping[str, str],
) -> None:
    """Steps of all losses together; a loss that was absent at a step has no share of it."""
    steps = sorted({step for series in share.values() for step in series.steps})
    rows = {}
    for loss in [*named, *others]:
        at = dict(zip(share[loss].steps, share[loss].values, strict=True))
        rows[loss] = [at.get(step, 0.0) for step in steps]
    areas = {loss: rows[loss] for loss in named}
    if others:
        rest = zip(*(rows[loss] for loss in others), strict=True)
        areas[f"{len(others)} others"] = [sum(values) for values in rest]
    stacked = ax.stackplot(
        steps, list(areas.values()), labels=list(areas), linewidth=0.3, edgecolor="white"
    )
    for area, loss in zip(stacked, areas, strict=True):
        area.set_facecolor(colours.get(loss, OTHERS))
    ax.set_ylim(0.0, 1.0)


def _agreement(ax: "Axes", choices: Choices, loss: str, colour: str) -> None:
    series = choices.agreement[loss]
    active = choices.active.get(loss, Series([], []))
    off = {s for s, v in zip(active.steps, active.values, strict=True) if v == 0.0}
    on_values = [math.nan if s in off else v for s, v in zip(*series, strict=True)]
    ax.plot(series.steps, series.values, color=colour, linewidth=0.9, linestyle=":")
    ax.plot(series.steps, on_values, color=colour, linewidth=1.6)
