"""The page of several runs beside each other: a sweep's or a study's."""

import math

from polyqwen.report.comparison.tables import board_lines, claim_lines, gain_lines
from polyqwen.report.page.charts import Charts, grid
from polyqwen.report.page.document import Section, document
from polyqwen.report.page.markup import Html, table, tag
from polyqwen.report.sections.results import bar, number
from polyqwen.report.sections.settings import told
from polyqwen.report.sections.summary import duration
from polyqwen.report.sweep_files import SweepFiles, SweepRun
from polyqwen.runs.history import Series

COLOURS = (
    *("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#6A51A3", "#8C564B"),
    *("#637939", "#B8860B", "#3B6E8F", "#843C39"),
)
MOST_LINES = 24  # in one chart
MOST_SCATTERS = 9


def sweep_page(sweep: SweepFiles) -> str:
    """The whole page, a file of its own."""
    names = [row.name for row in sweep.board.rows]
    of = {name: COLOURS[i % len(COLOURS)] for i, name in enumerate(names)}
    seeds = max(len(row.seeds) for row in sweep.board.rows) > 1
    label = {id(run): _label(run, seeds) for run in sweep.runs}
    lines = {label[id(run)]: of[run.variant] for run in sweep.runs}
    charts = Charts({**lines, **of})
    head = [tag("h1", sweep.title), tag("p", sweep.words.lead, cls="note")]
    head += [tag("p", warning, cls="warning") for warning in sweep.words.warnings]
    sections = [
        Section("Leaderboard", _leaderboard(sweep)),
        Section("Claims", [table(*claim_lines(sweep.claims))] if sweep.claims else []),
        Section("Over time", _over_time(sweep, charts, label)),
        Section("Weights", _weights(sweep, charts, label)),
        Section("What differs", _differing(sweep, charts)),
        Section("Runs", _runs(sweep)),
        Section("How to read this", [tag("ul", *(tag("li", n) for n in sweep.words.notes))]),
    ]
    return document(f"{sweep.title} · polyqwen", head, sections, charts.specs)


def _label(run: SweepRun, seeds: bool) -> str:
    return f"{run.variant} · {run.seed}" if seeds else run.variant


def _leaderboard(sweep: SweepFiles) -> list[object]:
    """A bar per variant, the table, and what each variant gains over the baseline."""
    board = sweep.board
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


def _over_time(sweep: SweepFiles, charts: Charts, label: dict[int, str]) -> list[Html]:
    keys = {"Validation score, mean of tasks": "val/score"}
    keys |= {f"{t}, validation {m}": f"val/{t}/{m}" for t, m in sweep.board.metrics.items()}
    keys |= {f"{task}, training loss": f"train/loss/{task}" for task in sweep.board.tasks}
    return _charts(sweep, charts, label, keys)


def _weights(sweep: SweepFiles, charts: Charts, label: dict[int, str]) -> list[Html]:
    keys = {f"{task}: weight as applied": f"weight/{task}" for task in sweep.board.tasks}
    return _charts(sweep, charts, label, keys)


def _charts(
    sweep: SweepFiles, charts: Charts, label: dict[int, str], keys: dict[str, str]
) -> list[Html]:
    """A chart per key, a line per run."""
    shown = sweep.runs[:MOST_LINES]
    figures = []
    for title, key in keys.items():
        lines: dict[str, Series] = {
            label[id(run)]: run.history[key] for run in shown if key in run.history
        }
        figures.append(charts.lines(title, lines, smooth=key.startswith("train/")))
    content = grid(figures)
    if not content:
        return []
    few = len(shown) < len(sweep.runs)
    note = [tag("p", f"The {len(shown)} runs of the best variants.", cls="note")] if few else []
    return [*note, content]


def _differing(sweep: SweepFiles, charts: Charts) -> list[Html]:
    """The score over every setting that is a number, and the settings of each variant."""
    figures: list[Html] = []
    for key, values in sweep.differing.items():
        numbers = [isinstance(v, int | float) and not isinstance(v, bool) for v in values]
        if not all(numbers) or key == "seed" or len(figures) == MOST_SCATTERS:
            continue
        points: dict[str, list[tuple[float, float, str]]] = {}
        for run, value in zip(sweep.runs, values, strict=True):
            point = (float(value), run.score, f"seed {run.seed}, {key} = {told(value)}")
            points.setdefault(run.variant, []).append(point)
        figures.append(charts.scatter(f"Score over {key}", points))
    lines = [
        [tag("code", key), ", ".join(dict.fromkeys(told(value) for value in values))]
        for key, values in sweep.differing.items()
    ]
    if not lines:
        return []
    settings = table(["setting", "values"], lines, left=2)
    return [
        grid(figures),
        tag("details", tag("summary", f"Settings that differ: {len(lines)}"), settings),
    ]


def _runs(sweep: SweepFiles) -> list[Html]:
    lines = [
        [
            run.variant,
            str(run.seed),
            number(run.score),
            "–" if math.isnan(run.fit_seconds) else duration(run.fit_seconds),
            tag("a", run.folder, href=run.page) if run.page else run.folder,
        ]
        for run in sweep.runs
    ]
    shown = [table(["variant", "seed", "score", "time to fit", "folder"], lines, cls="sortable")]
    if sweep.failed:
        failed = [[run.name, run.folder, run.why] for run in sweep.failed]
        shown += [tag("h3", "Not counted"), table(["run", "folder", "why"], failed, left=3)]
    return shown
