"""The cosines of the tasks' gradients as a heat map."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from polyqwen.report.figure_style import INK, MUTED, figure_style
from polyqwen.report.text_layout import drawable

COLOURS = "RdBu"  # red: against each other; blue: together
CELL = 0.85  # inches
NUMBERED = 12  # tasks up to which a cell has room for its number


def conflict_image(
    names: Sequence[str], cosine: Sequence[Sequence[float]], title: str, width: int = 700
) -> NDArray[np.uint8]:
    """The heat map, (height, width, 3).

    Args:
        names: T tasks or losses.
        cosine: (T, T) in [-1, 1]; NaN where two were never in one step.
        title: one line above.
        width: pixels.

    Raises:
        ValueError: the matrix is not T × T.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    values = np.asarray(cosine, dtype=np.float64)
    if values.shape != (len(names), len(names)):
        raise ValueError(f"cosine must be {len(names)} × {len(names)}, got {values.shape}")
    values = np.where(np.eye(len(names), dtype=bool), np.nan, values)  # always 1: says nothing
    with figure_style():
        side = max(4.5, CELL * len(names) + 2.2)
        figure = Figure(figsize=(side, side * 0.8), layout="constrained")
        figure.set_dpi(width / side)
        canvas = FigureCanvasAgg(figure)
        ax = figure.subplots()
        drawn = ax.imshow(values, cmap=COLOURS, vmin=-1.0, vmax=1.0)
        ax.set_facecolor("#F2F2F2")
        ax.grid(False)
        labels = [drawable(name) for name in names]
        ax.set_xticks(range(len(names)), labels, rotation=35, ha="right", color=INK)
        ax.set_yticks(range(len(names)), labels, color=INK)
        ax.tick_params(length=0)
        if len(names) <= NUMBERED:
            for (row, column), value in np.ndenumerate(values):
                text = "·" if math.isnan(value) else f"{value:+.2f}"
                colour = MUTED if math.isnan(value) else "white" if abs(value) > 0.6 else INK
                ax.text(column, row, text, ha="center", va="center", color=colour)
        figure.colorbar(drawn, ax=ax, shrink=0.8, label="against each other   ·   together")
        ax.set_title(drawable(title))
        canvas.draw()
        pixels: NDArray[np.uint8] = np.asarray(canvas.buffer_rgba())[..., :3].copy()
        return pixels
