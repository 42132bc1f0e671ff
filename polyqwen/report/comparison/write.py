"""Writes a comparison: Markdown, CSV, PNG and one HTML page."""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from polyqwen.atomic_files import write_text
from polyqwen.metrics.paired import Difference, Estimate
from polyqwen.report.comparison.axes import Axis
from polyqwen.report.comparison.board import Board, Variants
from polyqwen.report.comparison.figures import bars, trade_off, weight_panels
from polyqwen.report.comparison.gather import Comparison
from polyqwen.report.comparison.page import comparison_page
from polyqwen.report.comparison.tables import axis_lines, board_lines, claim_lines, gain_lines
from polyqwen.report.figure_style import figure_style, save
from polyqwen.report.format_values import markdown_table
from polyqwen.report.page.render import render_text
from polyqwen.runs.find import common_folder

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def write_comparison(found: Comparison, out: Path) -> list[Path]:
    """Writes ``leaderboard.{html,md,csv}``, ``runs.csv`` and the figures as PNG.

    Where keys differ between the runs, also ``axes.csv``.

    Returns:
        The files, the page first.
    """
    board, variants, claims, words = found.board, found.variants, found.claims, found.words
    figures = _figures(board, variants)
    root = common_folder(found.runs)
    page, text, table = (out / f"leaderboard.{suffix}" for suffix in ("html", "md", "csv"))
    runs, axes = out / "runs.csv", [out / "axes.csv"] if found.axes else []
    write_text(page, comparison_page(found, words.title, root, out))
    markdown = render_text(
        "leaderboard.md.j2",
        words=words,
        figures=figures,
        leaderboard=markdown_table(*board_lines(board)),
        claims=markdown_table(*claim_lines(claims)) if claims else "",
        axes=markdown_table(*axis_lines(found.axes), left=(0, 1, 2)) if found.axes else "",
        gains=markdown_table(*gain_lines(board)),
    )
    write_text(text, markdown)
    write_csv(board, table)
    write_runs(variants, board.tasks, root, runs)
    for path in axes:
        write_axes(found.axes, path)
    with figure_style():
        pictures = [save(figure, out / file) for file, figure, _ in figures.values()]
    return [page, text, table, runs, *axes, *pictures]


def _figures(board: Board, variants: Variants) -> dict[str, tuple[str, "Figure", str]]:
    """Heading -> name of the file, figure, caption."""
    figures = {"Score and tasks": ("bars.png", bars(board), "The baseline is the dark bar.")}
    trades = trade_off(board)
    if trades is not None:
        figures["Trade-offs"] = (
            "trade_off.png",
            trades,
            "Numbers are ranks by score. Between tasks up and to the right is better, between cost "
            "and score up and to the left.",
        )
    ordered = {row.name: variants[row.name] for row in board.rows}
    weights = weight_panels(ordered, board.tasks)
    if weights is not None:
        figures["Task weights over time"] = (
            "weights.png",
            weights,
            "As applied, λ · boost; a line per task and seed, the best variant first.",
        )
    return figures


def write_csv(board: Board, path: Path) -> None:
    """One line per variant, all numbers in full."""
    lines = []
    for row in board.rows:
        line: dict[str, object] = {"variant": row.name, "seeds": len(row.seeds)}
        line |= _numbers("score", row.score) | _numbers("difference", row.difference)
        line |= {"p_holm": row.p, "gain_percent": row.gain, "untrained": row.untrained.mean}
        for task in board.tasks:
            line |= _numbers(task, row.tasks[task])
            line |= _numbers(f"{task}_difference", row.task_differences[task])
            line |= {
                f"{task}_p_holm": row.task_p[task],
                f"{task}_gain_percent": row.gains[task],
            }
        line |= {
            "seconds_per_step": row.step_seconds,
            "cost": row.cost,
            "fit_seconds": row.fit_seconds,
        }
        lines.append(line)
    _write(path, lines)


def write_runs(variants: Variants, tasks: list[str], root: Path, path: Path) -> None:
    """One line per run; folders as seen from ``root``, which holds them all."""
    lines = [
        {
            "variant": name,
            "seed": run.seed,
            "score": run.score(tasks),
            **{task: run.value_of(task, tasks) for task in tasks},
            **run.timing,
            "folder": str(run.path.absolute().relative_to(root)),
        }
        for name, runs in variants.items()
        for run in runs
    ]
    _write(path, lines)


def write_axes(axes: Sequence[Axis], path: Path) -> None:
    """One line per axis and measure (the score, then each task), all numbers in full."""
    lines = []
    for axis in axes:
        measures = [("score", axis.score, axis.p)]
        measures += [(task, effect, axis.task_p[task]) for task, effect in axis.tasks.items()]
        for measure, effect, p in measures:
            line: dict[str, object] = {"key": axis.key, "measure": measure}
            line |= {"values": len(axis.levels), "seeds": axis.seeds, "inert": axis.inert}
            if effect is not None:
                line |= {"runs": effect.difference.n, "highest": effect.highest}
                line |= {"lowest": effect.lowest} | _numbers("effect", effect.difference)
                line |= {"seed_sd": effect.seed_sd, "p": effect.difference.p, "p_holm": p}
                line |= {"degrees": effect.degrees[0], "error_degrees": effect.degrees[1]}
                line |= {"interaction_p": effect.interaction_p}
            lines.append(line | {"verdict": axis.verdict if measure == "score" else ""})
    _write(path, lines)


def _numbers(name: str, value: Estimate | Difference) -> dict[str, float]:
    return {f"{name}_mean": value.mean, f"{name}_low": value.low, f"{name}_high": value.high}


def _write(path: Path, lines: Sequence[Mapping[str, object]]) -> None:
    names = list(dict.fromkeys(name for line in lines for name in line))
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, names)
    writer.writeheader()
    writer.writerows(lines)
    write_text(path, text.getvalue())
