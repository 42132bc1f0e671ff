"""The page of several runs beside each other: a sweep's, a study's, or any others'."""

import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from polyqwen.config.identity import is_compared
from polyqwen.report.comparison.board import Board, Variant
from polyqwen.report.comparison.claims import BELIEVED
from polyqwen.report.comparison.figures import trade_offs
from polyqwen.report.comparison.gather import Comparison
from polyqwen.report.comparison.tables import Column, axis_lines, claim_lines, columns, gain_lines
from polyqwen.report.format_values import yaml_text
from polyqwen.report.page.charts import Chart, Charts, drawn
from polyqwen.report.page.render import render_page
from polyqwen.runs.run_folder import RunFolder

COLOURS = (
    *("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#6A51A3", "#8C564B"),
    *("#637939", "#B8860B", "#3B6E8F", "#843C39"),
)
MOST_LINES = 24  # in one chart
MOST_SCATTERS = 9
RANKED = ("score", "Δ %")  # and the tasks: more is better, and there is a best
PAGE = "report.html"  # of a run, of a sweep, of a study

Runs = Mapping[str, RunFolder]  # by the label of its lines


def comparison_page(found: Comparison, title: str, folder: Path, seen_from: Path) -> str:
    """The whole page, a file of its own.

    Args:
        found: the comparison.
        title: of the page.
        folder: that holds the runs; they are named as seen from it.
        seen_from: folder of the page, for links to the runs' own pages.
    """
    board, words = found.board, found.words
    several = max(len(row.seeds) for row in board.rows) > 1
    runs = {f"{r.variant} · {r.seed}" if several else r.variant: r for r in found.runs}
    colours = {row.name: COLOURS[i % len(COLOURS)] for i, row in enumerate(board.rows)}
    charts = Charts({label: colours[run.variant] for label, run in runs.items()} | colours)
    sections = {
        "Leaderboard": {"table": _leaderboard(board), "gains": gain_lines(board)},
        "Claims": claim_lines(found.claims) if found.claims else None,
        "Effect of each key": axis_lines(found.axes) if found.axes else None,
        "Trade-offs": _trade_offs(board, charts),
        "Over time": _over_time(board, runs, charts),
        "Weights": _weights(board, runs, charts),
        "What differs": _differing(found, charts),
        "Runs": {
            "finished": [_finished(run, board, folder, seen_from) for run in found.runs],
            "failed": [_failed(run, folder) for run in found.unfinished],
        },
        "Variants": words.settings,
        "How to read this": words.notes,
    }
    content = {"heading": title, "board": board, "words": words, "believed": BELIEVED}
    return render_page("comparison.html.j2", f"{title} · polyqwen", sections, charts, **content)


class Cell(NamedTuple):
    """A number of the leaderboard.

    Attributes:
        value: as text.
        interval: half of it as text; empty where there is none.
        key: by which rows are sorted; empty for what is not known.
        best: whether it is the best of its column.
        trend: ``good`` or ``bad`` for a difference that is more than chance, else empty.
    """

    value: str
    interval: str
    key: str
    best: bool
    trend: str


def _leaderboard(board: Board) -> dict[str, Any]:
    shown = columns(board)
    best = [_best(board, column) for column in shown]
    return {
        "headings": [column.title for column in shown],
        "rows": {
            row.name: [_cell(row, column, top) for column, top in zip(shown, best, strict=True)]
            for row in board.rows
        },
        "references": {
            name: [column.reference(reference) for column in shown[1:]]
            for name, reference in (("untrained", board.untrained), ("chance", board.chance))
        },
    }


def _best(board: Board, column: Column) -> float:
    if column.title not in RANKED and column.title.rpartition(" ")[0] not in board.tasks:
        return math.nan
    keys = [column.key(row) for row in board.rows]
    return max((k for k in keys if isinstance(k, float) and not math.isnan(k)), default=math.nan)


def _cell(row: Variant, column: Column, best: float) -> Cell:
    key = column.key(row)
    value, _, interval = column.text(row).partition(" ±")
    task = column.title.rpartition(" ")[0]
    whole = column.title in ("score", "Δ score", "p")
    p = row.p if whole else row.task_p.get(task, math.nan)
    gain = row.difference.mean if whole else row.gains.get(task, math.nan)
    told = p < BELIEVED and (whole or task in row.tasks)
    unknown = isinstance(key, float) and math.isnan(key)
    return Cell(
        value,
        interval,
        "" if unknown else str(key),
        isinstance(key, float) and key == best and bool(value),
        ("good" if gain > 0 else "bad") if told else "",
    )


def _trade_offs(board: Board, charts: Charts) -> list[Chart]:
    """The first task against the others, and cost against score."""
    figures = []
    for panel in trade_offs(board):
        points = {
            row.name: [(x, y, row.name)]
            for row, (x, y) in zip(board.rows, panel.points, strict=True)
            if not math.isnan(x)
        }
        note = f"up: {panel.up}; across: {panel.across}"
        figures.append(charts.scatter(panel.title.capitalize(), points, note))
    return figures


def _over_time(board: Board, runs: Runs, charts: Charts) -> dict[str, Any] | None:
    keys = {"Validation score, mean of tasks": "val/score"}
    keys |= {f"{t}, validation {m}": f"val/{t}/{m}" for t, m in board.metrics.items()}
    keys |= {f"{task}, training loss": f"train/loss/{task}" for task in board.tasks}
    return _charts(runs, charts, keys)


def _weights(board: Board, runs: Runs, charts: Charts) -> dict[str, Any] | None:
    keys = {f"{task}: weight as applied": f"weight/{task}" for task in board.tasks}
    return _charts(runs, charts, keys)


def _charts(runs: Runs, charts: Charts, keys: Mapping[str, str]) -> dict[str, Any] | None:
    """A chart per key, a line per run; ``few`` of the runs where there are too many."""
    shown = dict(list(runs.items())[:MOST_LINES])
    figures = []
    for title, key in keys.items():
        lines = {label: run.history[key] for label, run in shown.items() if key in run.history}
        figures.append(charts.lines(title, lines, smooth=key.startswith("train/")))
    found = drawn(figures)
    few = len(shown) if len(shown) < len(runs) else None
    return {"charts": found, "few": few} if found else None


def _differing(found: Comparison, charts: Charts) -> dict[str, Any] | None:
    """The score over every setting that is a number, and the values of all that differ."""
    tasks = found.board.tasks
    differing = _differing_settings(found.runs)
    figures: list[Chart] = []
    for key, values in differing.items():
        numbers = [isinstance(v, int | float) and not isinstance(v, bool) for v in values]
        if not all(numbers) or key == "seed" or len(figures) == MOST_SCATTERS:
            continue
        points: dict[str, list[tuple[float, float, str]]] = {}
        for run, value in zip(found.runs, values, strict=True):
            label = f"seed {run.seed}, {key} = {yaml_text(value)}"
            points.setdefault(run.variant, []).append((float(value), run.score(tasks), label))
        figures.append(charts.scatter(f"Score over {key}", points))
    lines = [
        [key, ", ".join(dict.fromkeys(map(yaml_text, values)))] for key, values in differing.items()
    ]
    return {"charts": figures, "lines": lines} if lines else None


def _differing_settings(runs: Sequence[RunFolder]) -> dict[str, list[Any]]:
    """Key -> its value in each run, of settings that are not the same everywhere."""
    settings = [
        {k: v for k, v in run.settings.items() if is_compared(k) and not _of_place(v, run.path)}
        for run in runs
    ]
    keys = dict.fromkeys(key for one in settings for key in one)
    values = {key: [one.get(key) for one in settings] for key in keys}
    return {k: v for k, v in values.items() if len({json.dumps(x, default=str) for x in v}) > 1}


def _of_place(value: Any, folder: Path) -> bool:
    """Whether a value names the run's own folder: another in every run, and no setting."""
    return isinstance(value, str) and folder.absolute().name in Path(value).parts


def _finished(run: RunFolder, board: Board, folder: Path, seen_from: Path) -> dict[str, Any]:
    page = run.path / PAGE
    return {
        "variant": run.variant,
        "seed": run.seed,
        "score": run.score(board.tasks),
        "fit_seconds": run.timing.get("fit_seconds"),
        "folder": _relative(run.path, folder),
        "page": _relative(page, seen_from) if page.is_file() else "",
    }


def _failed(run: RunFolder, folder: Path) -> list[str]:
    name = f"{run.variant}, seed {run.seed}" if run.variant else ""
    return [name, _relative(run.path, folder), run.problem]


def _relative(path: Path, folder: Path) -> str:
    return os.path.relpath(path.absolute(), folder.absolute())
