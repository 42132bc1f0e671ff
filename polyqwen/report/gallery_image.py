"""A gallery small enough to be read as a thumbnail: a query's picture beside a list of texts."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from polyqwen.report.figure_style import FAINT, INK, MUTED, RIGHT, WRONG, figure_style
from polyqwen.report.gallery import GalleryRow, Result, draw_gallery
from polyqwen.report.text_layout import display_width, drawable, text_fonts, wrap_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH, PICTURE_WIDTH, ROW_HEIGHT = 5.4, 1.7, 1.75  # inches
COLUMNS = 44  # characters per line beside the picture
LINES = 9
FONT = 9.5  # points


def gallery_image(rows: Sequence[GalleryRow], title: str, width: int = 700) -> NDArray[np.uint8]:
    """One band per query: its picture; question, answer and rank; results, ✓ right or ✗ wrong.

    TensorBoard shows images a third of the window wide, where the grid of `plot_gallery` would be
    too small to read. Results with pictures need that grid, twice as wide.

    Args:
        rows: queries, at least one.
        title: one line above them.
        width: pixels.

    Returns:
        (height, width, 3).
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    if not rows:
        raise ValueError("rows is empty: a gallery needs at least one query")
    pictures = any(Result(*result).image is not None for row in rows for result in row["results"])
    with figure_style(text_fonts()):
        figure = draw_gallery(rows, title) if pictures else _draw_list(rows, title)
        figure.set_dpi((1 + pictures) * width / figure.get_figwidth())
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        drawn: NDArray[Any] = np.asarray(canvas.buffer_rgba())
        return drawn[..., :3].copy()


def _draw_list(rows: Sequence[GalleryRow], title: str) -> "Figure":
    from matplotlib.figure import Figure

    height = ROW_HEIGHT * len(rows) + 0.3
    figure = Figure(figsize=(WIDTH, height))
    figure.text(0.02, 1 - 0.08 / height, drawable(title), va="top", fontweight="bold")
    for i, row in enumerate(rows):
        bottom = (len(rows) - 1 - i) * ROW_HEIGHT / height
        _draw_band(figure, row, bottom, ROW_HEIGHT / height)
    return figure


def _draw_band(figure: "Figure", row: GalleryRow, bottom: float, height: float) -> None:
    band = figure.add_axes((0, bottom, 1, height))
    band.set_axis_off()
    band.axhline(1, color=FAINT, linewidth=2)
    left = 0.02
    if row["query_image"] is not None:
        picture = figure.add_axes(
            (0.02, bottom + 0.06 * height, PICTURE_WIDTH / WIDTH - 0.02, 0.88 * height)
        )
        picture.set_axis_off()
        picture.imshow(np.asarray(row["query_image"].convert("RGB")), interpolation="antialiased")
        left += PICTURE_WIDTH / WIDTH
    _write_lines(band, left, _lines(row))


def _lines(row: GalleryRow) -> list[tuple[str, str]]:
    """Lines of text with their colours, at most ``LINES``."""
    answer = "→ " + row["answer_text"]
    blocks = [
        (row["query_text"], INK, 3),
        (answer, RIGHT, 1),
        (row.get("answer_note", ""), MUTED, 1),
    ]
    for result in row["results"]:
        shown = Result(*result)
        mark, colour = ("✓", RIGHT) if shown.correct else ("✗", WRONG)
        blocks.append((f"{mark} {shown.cosine:.2f} {shown.text}", colour, 1))
    lines = [
        (line, colour)
        for text, colour, most in blocks
        for line in wrap_text(drawable(text), COLUMNS, most).split("\n")
        if display_width(line)
    ]
    return lines[:LINES]


def _write_lines(band: "Axes", left: float, lines: Sequence[tuple[str, str]]) -> None:
    for i, (line, colour) in enumerate(lines):
        y = 0.95 - i * 0.9 / LINES
        band.text(left, y, line, transform=band.transAxes, fontsize=FONT, color=colour, va="top")
