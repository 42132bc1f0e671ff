"""Figures of a run over its optimizer steps, from its ``metrics.csv``."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from polyqwen.report.figure_style import MUTED, figure_style, panels, save, task_colours
from polyqwen.runs.history import Series, by_metric, by_task, read_history, smooth

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Panels = dict[str, dict[str, Series]]  # title → line → series

LABELS = {
    "recall@1": "Recall@1",
    "recall@5": "Recall@5",
    "recall@10": "Recall@10",
    "mrr": "MRR",
    "ndcg@10": "nDCG@10",
    "spearman": "Spearman correlation",
    "gap": "Similarity gap (cosine)",
    "gap_effect": "Similarity gap (std. deviations)",
    "alignment": "Alignment (low is good)",
    "uniformity": "Uniformity (low is good)",
    "effective_rank": "Effective rank (dimensions)",
    "modality_gap": "Modality gap (distance)",
}
SWITCH = "phase switch"
SIZES = ("pool", "queries")  # constant over a run


def plot_curves(csv_path: Path, out: Path, phase_switch: int | None = None) -> list[Path]:
    """Draws the curves of a run, one file per subject; subjects never logged are left out.

    ``losses.png``, ``weights.png``, ``schedules.png``, ``validation.png``, ``space.png``.

    Args:
        csv_path: the ``metrics.csv`` of Lightning's CSVLogger.
        out: folder of the figures, created if need be.
        phase_switch: optimizer step of the phase switch, drawn as a vertical line.

    Returns:
        The files written.
    """
    history = read_history(csv_path)
    subjects = _subjects(history)
    named = [content for name, content in subjects.items() if name != "schedules"]
    colours = task_colours(
        task for content in named for lines in content.values() for task in lines
    )
    written = []
    for name, content in subjects.items():
        if content:
            path = Path(out) / f"{name}.png"
            written.append(_draw(content, path, colours, phase_switch, raw=name == "losses"))
    return written


def _subjects(history: dict[str, Series]) -> dict[str, Panels]:
    losses, weights = by_task(history, "train/loss"), by_task(history, "weight")
    schedules = by_task(history, "schedule")
    return {
        "losses": {"Training loss, before weighting": losses} if losses else {},
        "weights": {"Task weight": weights} if weights else {},
        "schedules": {name: {name: series} for name, series in schedules.items()},
        "validation": _labelled(by_metric(history, "val")),
        "space": _labelled(by_metric(history, "space")),
    }


def _labelled(metrics: Panels) -> Panels:
    return {LABELS.get(name, name): metrics[name] for name in in_order(metrics)}


def in_order(metrics: Collection[str]) -> list[str]:
    """Names of metrics, known ones first and in the order of ``LABELS``; sizes are left out."""
    known = [name for name in LABELS if name in metrics]
    return known + sorted(set(metrics) - set(LABELS) - set(SIZES))


def _draw(
    content: Panels, path: Path, colours: Mapping[str, str], switch: int | None, raw: bool
) -> Path:
    with figure_style():
        figure, axes = panels(len(content))
        for ax, (title, lines) in zip(axes, content.items(), strict=True):
            for name in sorted(lines):
                _line(ax, name, lines[name], colours.get(name, "#444444"), raw)
            ax.set_title(title)
            ax.set_xlabel("optimizer step")
            ax.margins(x=0.01)
            ax.ticklabel_format(axis="y", scilimits=(-3, 4))
            if switch is not None:
                ax.axvline(switch, color=MUTED, linewidth=1, linestyle=(0, (4, 3)), label=SWITCH)
        handles, labels = _legend_entries(axes, colours)
        if handles:
            figure.legend(handles, labels, loc="outside lower center", ncols=len(labels))
        return save(figure, path)


def _line(ax: "Axes", name: str, series: Series, colour: str, raw: bool) -> None:
    """One line; noisy values are shown faintly behind their moving average."""
    few = len(series.steps) <= 40
    style: dict[str, Any] = {"color": colour, "linewidth": 1.6, "label": name}
    if raw and len(series.steps) > 20:
        ax.plot(series.steps, series.values, color=colour, linewidth=0.7, alpha=0.25)
        ax.plot(series.steps, smooth(series.values, len(series.values) // 20 + 4), **style)
    else:
        ax.plot(series.steps, series.values, marker="o" if few else "", markersize=2.5, **style)


def _legend_entries(axes: "list[Axes]", colours: Mapping[str, str]) -> tuple[list[Any], list[str]]:
    """Every task once over all panels; lines that are no task have their name as title."""
    entries: dict[str, Any] = {}
    for ax in axes:
        handles, labels = ax.get_legend_handles_labels()
        entries |= dict(zip(labels, handles, strict=True))
    names = [name for name in (*colours, SWITCH) if name in entries]
    return [entries[name] for name in names], names
