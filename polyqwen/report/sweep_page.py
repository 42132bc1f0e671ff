"""The page of several runs beside each other: a sweep's or a study's."""

import json
import math
import os
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from polyqwen.config.identity import is_compared
from polyqwen.report.comparison.board import Board
from polyqwen.report.comparison.gather import UNTITLED, Comparison
from polyqwen.report.comparison.tables import board_lines, claim_lines, gain_lines
from polyqwen.report.page.charts import Charts, grid
from polyqwen.report.page.document import Section, document
from polyqwen.report.page.markup import Html, table, tag
from polyqwen.report.sections.results import bar, number
from polyqwen.report.sections.settings import told
from polyqwen.report.sections.summary import duration
from polyqwen.runs.run_folder import RunFolder
from polyqwen.runs.scores import score

COLOURS = (
    *("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#6A51A3", "#8C564B"),
    *("#637939", "#B8860B", "#3B6E8F", "#843C39"),
)
PAGE = "report.html"  # of a run, of a sweep, of a study
MOST_LINES = 24  # in one chart
MOST_SCATTERS = 9


def sweep_page(comparison: Comparison, folder: Path, seen_from: Path) -> str:
    """The whole page, a file of its own.

    Args:
        comparison: of the runs.
        folder: the sweep's or the study's.
        seen_from: the page's, for links to the pages of the runs.
    """
    board, words = comparison.board, comparison.words
    title = folder.absolute().name if words.title == UNTITLED else words.title
    of = {row.name: COLOURS[i % len(COLOURS)] for i, row in enumerate(board.rows)}
    seeds = max(len(row.seeds) for row in board.rows) > 1
    runs = {_label(run, seeds): run for run in comparison.runs}
    charts = Charts({label: of[run.variant] for label, run in runs.items()} | of)
    head = [tag("h1", title), tag("p", words.lead, cls="note")]
    head += [tag("p", warning, cls="warning") for warning in words.warnings]
    sections = [
        Section("Leaderboard", _leaderboard(board)),
        Section("Claims", [table(*claim_lines(comparison.claims))] if comparison.claims else []),
        Section("Over time", _over_time(board, runs, charts)),
        Section("Weights", _weights(board, runs, charts)),
        Section("What differs", _differing(comparison, charts)),
        Section("Runs", _runs(comparison, folder, seen_from)),
        Section("How to read this", [tag("ul", *(tag("li", note) for note in words.notes))]),
    ]
    return document(f"{title} · polyqwen", head, sections, charts.specs)


def _label(run: RunFolder, seeds: bool) -> str:
    return f"{run.variant} · {run.seed}" if seeds else run.variant


def _leaderboard(board: Board) -> list[object]:
    """A bar per variant, the table, and what each variant gains over the baseline."""
    cells: list[object] = []
    for row in board.rows:
        values = {
            "trained": row.score.mean,
            "untrained": board.untrained.score.mean,
            "chance": board.chance.score.mean,
        }
        known = {name: None if math.isnan(v) else v for name, v in values.items()}
        half = "" if math.isnan(row.score.half) else f" ± {row.score.half:.3f}"
        value = tag("span", tag("b", number(row.score.mean)), tag("small", half), cls="value")
        cells += [
            tag("span", row.name, cls="name"),
            bar(known, row.score.low, row.score.high),
            value,
        ]
    note = "Mean test score over seeds; the line is its 95 % interval, the tall tick is the "
    note += (
        "untrained model, the short one a random order. Click a heading of the table to sort by it."
    )
    shown: list[object] = [tag("p", note, cls="note"), tag("div", *cells, cls="bars")]
    shown.append(table(*board_lines(board), cls="sortable"))
    if len(board.rows) > 1:
        gains = table(*gain_lines(board))
        shown.append(tag("details", tag("summary", f"Per task, against {board.baseline}"), gains))
    return shown


def _over_time(board: Board, runs: Mapping[str, RunFolder], charts: Charts) -> list[Html]:
    keys = {"Validation score, mean of tasks": "val/score"}
    keys |= {f"{t}, validation {m}": f"val/{t}/{m}" for t, m in board.metrics.items()}
    keys |= {f"{task}, training loss": f"train/loss/{task}" for task in board.tasks}
    return _charts(runs, charts, keys)


def _weights(board: Board, runs: Mapping[str, RunFolder], charts: Charts) -> list[Html]:
    keys = {f"{task}: weight as applied": f"weight/{task}" for task in board.tasks}
    return _charts(runs, charts, keys)


def _charts(runs: Mapping[str, RunFolder], charts: Charts, keys: Mapping[str, str]) -> list[Html]:
    """A chart per key, a line per run."""
    shown = dict(list(runs.items())[:MOST_LINES])
    figures = []
    for title, key in keys.items():
        lines = {label: run.history[key] for label, run in shown.items() if key in run.history}
        figures.append(charts.lines(title, lines, smooth=key.startswith("train/")))
    content = grid(figures)
    if not content:
        return []
    few = len(shown) < len(runs)
    note = [tag("p", f"The {len(shown)} runs of the best variants.", cls="note")] if few else []
    return [*note, content]


def _differing(comparison: Comparison, charts: Charts) -> list[Html]:
    """The score over every setting that is a number, and the settings of each variant."""
    runs, tasks = comparison.runs, comparison.board.tasks
    differing = _differing_settings(runs)
    figures: list[Html] = []
    for key, values in differing.items():
        numbers = [isinstance(v, int | float) and not isinstance(v, bool) for v in values]
        if not all(numbers) or key == "seed" or len(figures) == MOST_SCATTERS:
            continue
        points: dict[str, list[tuple[float, float, str]]] = {}
        for run, value in zip(runs, values, strict=True):
            point = (float(value), score(run, tasks), f"seed {run.seed}, {key} = {told(value)}")
            points.setdefault(run.variant, []).append(point)
        figures.append(charts.scatter(f"Score over {key}", points))
    lines = [
        [tag("code", key), ", ".join(dict.fromkeys(told(value) for value in values))]
        for key, values in differing.items()
    ]
    if not lines:
        return []
    settings = table(["setting", "values"], lines, left=2)
    return [
        grid(figures),
        tag("details", tag("summary", f"Settings that differ: {len(lines)}"), settings),
    ]


def _differing_settings(runs: Sequence[RunFolder]) -> dict[str, list[Any]]:
    """Key → its value in each run, of settings that are not the same everywhere."""
    compared = [
        {k: v for k, v in run.settings.items() if is_compared(k) and not _of_place(v, run.path)}
        for run in runs
    ]
    columns = {key: [settings.get(key) for settings in compared] for key in chain(*compared)}
    texts = {k: {json.dumps(v, default=str) for v in column} for k, column in columns.items()}
    return {key: column for key, column in columns.items() if len(texts[key]) > 1}


def _of_place(value: Any, folder: Path) -> bool:
    """Whether a value names the run's own folder: another in every run, and no setting."""
    return isinstance(value, str) and folder.absolute().name in Path(value).parts


def _runs(comparison: Comparison, folder: Path, seen_from: Path) -> list[Html]:
    lines = []
    for run in comparison.runs:
        seconds, name = run.timing.get("fit_seconds"), _relative(run.path, folder)
        page = run.path / PAGE
        lines.append(
            [
                run.variant,
                str(run.seed),
                number(score(run, comparison.board.tasks)),
                "–" if seconds is None else duration(seconds),
                tag("a", name, href=_relative(page, seen_from)) if page.is_file() else name,
            ]
        )
    shown = [table(["variant", "seed", "score", "time to fit", "folder"], lines, cls="sortable")]
    if comparison.unfinished:
        failed = [
            [
                f"{run.variant}, seed {run.seed}" if run.variant else "",
                _relative(run.path, folder),
                run.problem,
            ]
            for run in comparison.unfinished
        ]
        shown += [tag("h3", "Not counted"), table(["run", "folder", "why"], failed, left=3)]
    return shown


def _relative(path: Path, folder: Path) -> str:
    return os.path.relpath(path.absolute(), folder.absolute())
