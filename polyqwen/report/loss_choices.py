"""Which losses or tasks a weighting chose when, and why, from a run's ``metrics.csv``."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from polyqwen.atomic_files import write_text
from polyqwen.report.figure_style import MUTED, figure_style, panels, save, task_colours
from polyqwen.report.format_values import markdown_table
from polyqwen.runs.history import Series, by_task, read_history

if TYPE_CHECKING:
    from matplotlib.axes import Axes

HEADINGS = ("Loss", "Share: first", "mean", "last", "Chosen", "Agreement", "Off", "Why")
SWITCH_HEADINGS = ("Step", "Loss", "Switched", "Evidence")
Z = 1.64  # standard errors, as in the weighting's own test
NAMED = 7  # losses with a colour of their own
OTHERS = "#c8c8c8"


class Choices(NamedTuple):
    """What a weighting logged of its choices, loss -> series; ``weighting/<name>/<loss>``."""

    share: dict[str, Series]
    agreement: dict[str, Series]
    active: dict[str, Series]
    evidence: dict[str, Series]
    evidence_error: dict[str, Series]


def read_choices(csv_path: Path) -> Choices:
    """Reads what strategies that look at trusted rows log.

    Raises:
        ValueError: the run logged no shares.
    """
    history = read_history(csv_path)
    choices = Choices(*(by_task(history, f"weighting/{name}") for name in Choices._fields))
    if not choices.share:
        raise ValueError(
            f"{csv_path} has no weighting/share/…; the run's weighting must choose by trusted rows"
        )
    return choices


def choices_table(choices: Choices) -> str:
    """Markdown: a line for each loss, largest mean share first, then every switch."""
    losses = sorted(choices.share, key=lambda loss: -mean_of(choices.share[loss]))
    summaries = markdown_table(HEADINGS, [_summary(choices, loss) for loss in losses], left=(0, 7))
    events = sorted(event for loss in losses for event in _switches(choices, loss))
    if not events:
        return summaries
    lines = [(str(step), *told) for step, *told in events]
    return f"{summaries}\n{markdown_table(SWITCH_HEADINGS, lines, left=(1, 2, 3))}"


def _summary(choices: Choices, loss: str) -> tuple[str, ...]:
    share, agreement = choices.share[loss], choices.agreement.get(loss)
    active = choices.active.get(loss)
    chosen = sum(value > 0.0 for value in share.values) / len(share.values)
    off = 0.0 if active is None else sum(v == 0.0 for v in active.values) / len(active.values)
    mean = math.nan if agreement is None else mean_of(agreement)
    shown = [
        f"{100 * v:.0f} %" for v in (share.values[0], mean_of(share), share.values[-1], chosen)
    ]
    return loss, *shown, f"{mean:+.2f}", f"{100 * off:.0f} %", _why(choices, loss, mean, off)


def _why(choices: Choices, loss: str, mean: float, off: float) -> str:
    """The plainest reading of the numbers; a rank says where the loss stands among the others."""
    if off > 0.5:
        return "off most of the time: its gradient points against the trusted rows"
    means = [mean_of(series) for series in choices.agreement.values()]
    rank = 1 + sum(value > mean for value in means)
    found = f"agreement ranks {rank} of {len(means)}"
    if mean <= 0.0:
        return f"{found}, not positive" + ("; off for a while" if off else "")
    more = mean_of(choices.share[loss]) >= 1.0 / len(choices.share)
    return f"{'more' if more else 'less'} than an equal share; {found}"


def _switches(choices: Choices, loss: str) -> list[tuple[int, str, str, str]]:
    """(step, loss, off or on, evidence) whenever ``active`` changes between two logged steps."""
    active = choices.active.get(loss)
    if active is None:
        return []
    found, before, since = [], 1.0, "–"
    for step, now in zip(active.steps, active.values, strict=True):
        if now != before:
            found.append((step, loss, "on again" if now else "off", since))
        before, since = now, _evidence(choices, loss, step)
    return found


def _evidence(choices: Choices, loss: str, step: int) -> str:
    """As it stood at a step, before a switch makes the weighting forget it."""
    values = []
    for table in (choices.evidence, choices.evidence_error):
        series = table.get(loss, Series([], []))
        values.append(dict(zip(series.steps, series.values, strict=True)).get(step))
    if values[0] is None or values[1] is None:
        return "–"
    return f"mean agreement {values[0]:+.3f} ± {Z * values[1]:.3f}"


def mean_of(series: Series) -> float:
    """Mean of what is known, NaN if nothing is."""
    known = [value for value in series.values if not math.isnan(value)]
    return sum(known) / len(known) if known else math.nan


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
