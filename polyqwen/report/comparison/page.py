"""The comparison as one HTML page that needs nothing else: no network, no other file."""

import io
import math
import re
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING

from polyqwen.report.comparison.board import Board, Variant
from polyqwen.report.comparison.captions import Words
from polyqwen.report.comparison.claims import BELIEVED, Tested
from polyqwen.report.comparison.tables import Column, claim_lines, columns, gain_lines, number
from polyqwen.report.figure_style import figure_style
from polyqwen.runs.find import common_folder
from polyqwen.runs.run_folder import RunFolder
from polyqwen.runs.scores import score

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TEMPLATE = Path(__file__).with_name("page.html")
RANKED = ("score", "Δ %")  # and the tasks: more is better, and there is a best

Figures = Mapping[str, tuple["Figure", str]]  # heading → figure, caption


def render_page(
    board: Board,
    variants: Mapping[str, Sequence[RunFolder]],
    claims: Sequence[Tested],
    figures: Figures,
    words: Words,
) -> str:
    """The page.

    Args:
        board: the comparison.
        variants: the runs that it is made of.
        claims: put to the test; none for a plain comparison.
        figures: heading -> figure and caption.
        words: title, lead, warnings, notes and what each variant is.
    """
    warnings = "".join(f'<p class="note">⚠ {escape(text)}</p>' for text in words.warnings)
    return Template(TEMPLATE.read_text(encoding="utf-8")).substitute(
        title=escape(words.title),
        lead=escape(words.lead),
        warnings=warnings,
        leaderboard=_leaderboard(board, words),
        claims=_claims(claims),
        figures="".join(_figure(h, figure, text) for h, (figure, text) in figures.items()),
        gains=_table(*gain_lines(board)),
        notes="".join(f"<li>{escape(note)}</li>" for note in words.notes),
        variants=_variants(board, variants, words),
    )


def inline_svg(figure: "Figure") -> str:
    """The figure as an ``<svg>`` element.

    HTML knows the name spaces of SVG, so their addresses are left out: the page names no host.
    """
    buffer = io.StringIO()
    with figure_style():
        empty = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(buffer, format="svg", metadata=empty)
    element = buffer.getvalue()
    return re.sub(r'\sxmlns(:\w+)?="[^"]*"', "", element[element.index("<svg") :])


def _figure(heading: str, figure: "Figure", caption: str) -> str:
    text = f'<p class="caption">{escape(caption)}</p>'
    return f"<h2>{escape(heading)}</h2>{text}<figure>{inline_svg(figure)}</figure>"


def _leaderboard(board: Board, words: Words) -> str:
    shown = columns(board)
    best = {c.title: _best(board, c) for c in shown}
    lines = []
    for row in board.rows:
        cells = [_cell(row, c, best[c.title], words.settings.get(row.name, "")) for c in shown]
        chosen = ' class="baseline"' if row.name == board.baseline else ""
        lines.append(f"<tr{chosen}>{''.join(cells)}</tr>")
    foot = [
        f"<tr><td>{name}</td>{''.join(f'<td>{c.reference(of)}</td>' for c in shown[1:])}</tr>"
        for name, of in (("untrained", board.untrained), ("chance", board.chance))
    ]
    sorted_by = {"score": ' aria-sort="descending"'}
    heads = "".join(
        f"<th{sorted_by.get(c.title, '')}>{_heading(c.title, board)}</th>" for c in shown
    )
    return (
        f'<table class="sortable"><thead><tr>{heads}</tr></thead><tbody>{"".join(lines)}</tbody>'
        f"<tfoot>{''.join(foot)}</tfoot></table>"
    )


def _heading(title: str, board: Board) -> str:
    task, _, metric = title.rpartition(" ")
    return f"{escape(task)}<br>{escape(metric)}" if task in board.tasks else escape(title)


def _best(board: Board, column: Column) -> float:
    if column.title not in RANKED and column.title.rpartition(" ")[0] not in board.tasks:
        return math.nan
    keys = [column.key(row) for row in board.rows]
    return max((k for k in keys if isinstance(k, float) and not math.isnan(k)), default=math.nan)


def _cell(row: Variant, column: Column, best: float, settings: str) -> str:
    key = column.key(row)
    value, _, interval = column.text(row).partition(" ±")
    text = escape(value) + (f' <span class="ci">±{escape(interval)}</span>' if interval else "")
    task = column.title.rpartition(" ")[0]
    whole = column.title in ("score", "Δ score", "p")
    p = row.p if whole else row.task_p.get(task, math.nan)
    gain = row.difference.mean if whole else row.gains.get(task, math.nan)
    kinds = ["best"] if isinstance(key, float) and key == best and value else []
    if p < BELIEVED and (whole or task in row.tasks):
        kinds.append("up" if gain > 0 else "down")
    unknown = isinstance(key, float) and math.isnan(key)
    attributes = f' data-key="{"" if unknown else escape(str(key))}"'
    attributes += f' class="{" ".join(kinds)}"' if kinds else ""
    if column.title == "variant" and settings:
        attributes += f' title="{escape(settings)}"'
    return f"<td{attributes}>{text}</td>"


def _claims(claims: Sequence[Tested]) -> str:
    if not claims:
        return ""
    caption = (
        "Each against its absence, over the same seeds; p by paired t-test, adjusted for all "
        f"claims. A claim holds or is contradicted when p < {BELIEVED}; else it is open."
    )
    table = _table(*claim_lines(claims), first="long")
    return f'<h2>Claims</h2><p class="caption">{caption}</p><div class="wide">{table}</div>'


def _table(headings: Sequence[str], lines: Sequence[Sequence[str]], first: str = "text") -> str:
    heads = "".join(f"<th>{escape(heading)}</th>" for heading in headings)
    body = "".join(
        f'<tr><td class="{first}">{escape(line[0])}</td>'
        + "".join(f"<td>{escape(cell)}</td>" for cell in line[1:])
        + "</tr>"
        for line in lines
    )
    return f"<table><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table>"


def _variants(board: Board, variants: Mapping[str, Sequence[RunFolder]], words: Words) -> str:
    """What each variant is, and its runs."""
    parts, root = [], common_folder(run for runs in variants.values() for run in runs)
    for row in board.rows:
        settings = words.settings.get(row.name, "")
        what = f"<p><code>{escape(settings)}</code></p>" if settings else ""
        runs = [
            [
                str(run.seed),
                number(score(run, board.tasks)),
                *(number(run.timing.get(k, math.nan), 1) for k in ("fit_seconds",)),
                str(run.path.absolute().relative_to(root)),
            ]
            for run in variants[row.name]
        ]
        table = _table(["seed", "score", "fit, s", "folder"], runs)
        parts.append(f"<details><summary>{escape(row.name)}</summary>{what}{table}</details>")
    return "".join(parts)
