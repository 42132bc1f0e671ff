"""Draws the paths of `benchmarks.toy_two_objectives`: a block per problem, a panel per method."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.toy_problem import pareto_set
from polyqwen.report.figure_style import INK, MUTED, RIGHT, WRONG, figure_style, save

TITLES = {
    "average": "Average",
    "gradnorm": "GradNorm",
    "mgda": "MGDA",
    "pcgrad": "PCGrad",
    "cagrad": "CAGrad",
    "nash_mtl": "Nash-MTL",
    "imtl_g": "IMTL-G",
}
BLOCKS = {
    "cagrad_toy": "both objectives as they are (Liu et al., 2021)",
    "nash_mtl_toy": "first objective × 0.1 (Navon et al., 2022)",
}
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00")
LIMIT, GRID = 11.0, 320


def draw(
    paths: Sequence[Any],
    arrived: Sequence[bool],
    surface: Callable[[str, np.ndarray], np.ndarray],
    optimum: Callable[[str], np.ndarray],
    out: Path,
) -> None:
    """Writes the figure.

    Args:
        paths: with ``problem``, ``method`` and ``points`` (K, 2).
        arrived: whether each ended in the Pareto set.
        surface: problem, points (N, 2) -> mean loss (N,).
        optimum: problem -> (2,) where the mean loss is least.
        out: where.
    """
    from matplotlib.figure import Figure

    with figure_style():
        figure = Figure(figsize=(11.5, 12.6), layout="constrained")
        blocks = figure.subfigures(len(BLOCKS), 1, hspace=0.03)
        for block, (problem, words) in zip(blocks, BLOCKS.items(), strict=True):
            block.suptitle(words, x=0.01, ha="left", fontsize=12, color=INK)
            axes = block.subplots(2, 4, sharex=True, sharey=True).flatten()
            for axis, (method, title) in zip(axes, TITLES.items(), strict=False):
                _landscape(axis, lambda x, name=problem: surface(name, x), optimum(problem))
                both = zip(paths, arrived, strict=True)
                mine = [(p, a) for p, a in both if (p.problem, p.method) == (problem, method)]
                for (path, there), colour in zip(mine, COLOURS, strict=False):
                    _path(axis, path.points, colour, there)
                axis.set_title(title)
                _verdict(axis, [there for _, there in mine])
            _legend(axes[-1])
        save(figure, out, colours=128)


def _verdict(axis: Any, ends: list[bool]) -> None:
    words = f"{sum(ends)} of {len(ends)} arrive"
    colour = RIGHT if all(ends) else WRONG
    axis.text(0.99, 1.025, words, transform=axis.transAxes, ha="right", color=colour, fontsize=8.5)


def _landscape(axis: Any, surface: Any, optimum: np.ndarray) -> None:
    """Mean loss as shades, the Pareto set and the least mean loss."""
    line = np.linspace(-LIMIT, LIMIT, GRID)
    grid = np.stack(np.meshgrid(line, line), axis=-1)
    height = surface(grid.reshape(-1, 2)).reshape(GRID, GRID)
    shades = {"cmap": "Greys_r", "alpha": 0.55, "zorder": 0}
    axis.contourf(line, line, height, levels=24, **shades)
    front = pareto_set()
    axis.plot(front[:, 0], front[:, 1], color=INK, linewidth=5, alpha=0.75, solid_capstyle="round")
    axis.plot(*optimum, marker="*", markersize=11, color="white", markeredgecolor=INK, zorder=6)
    axis.set(xlim=(-LIMIT, LIMIT), ylim=(-LIMIT, LIMIT), xticks=(-10, 0, 10), yticks=(-10, 0, 10))
    axis.set_aspect("equal")
    axis.grid(False)


def _path(axis: Any, points: np.ndarray, colour: str, there: bool) -> None:
    axis.plot(points[:, 0], points[:, 1], color="white", linewidth=3.4, zorder=3)
    axis.plot(points[:, 0], points[:, 1], color=colour, linewidth=1.8, zorder=4)
    axis.plot(*points[0], marker="o", color=colour, markersize=6, markeredgecolor="white", zorder=5)
    end = {"marker": "D" if there else "X", "markersize": 6 if there else 8}
    axis.plot(*points[-1], color=colour, markeredgecolor="white", zorder=7, **end)


def _legend(axis: Any) -> None:
    """What the marks mean, in the panel that is left over."""
    from matplotlib.lines import Line2D

    def mark(label: str, **style: Any) -> Line2D:
        return Line2D([], [], **({"color": MUTED, "linestyle": "none"} | style), label=label)

    axis.axis("off")
    handles = [
        mark("start", marker="o", markersize=7),
        mark("end in the Pareto set", marker="D", markersize=6),
        mark("end elsewhere", marker="X", markersize=8),
        mark("Pareto set", color=INK, linestyle="-", linewidth=5, alpha=0.75),
        mark("least mean loss", marker="*", color="white", markeredgecolor=INK, markersize=12),
    ]
    note = "shades: mean loss, dark is low"
    axis.legend(handles=handles, loc="center left", fontsize=9.5, labelspacing=1.0, title=note)
