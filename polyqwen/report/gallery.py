"""Queries beside what the model found for them."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, NotRequired, TypedDict

import numpy as np

from polyqwen.report.figure_style import FAINT, INK, MUTED, RIGHT, WRONG, figure_style, save
from polyqwen.report.text_layout import drawable, text_fonts, wrap_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from PIL.Image import Image

MAX_RESULTS = 5
COLUMNS = 33  # characters per line of a cell
CELL_WIDTH, PICTURE_HEIGHT, TEXT_HEIGHT = 2.5, 1.35, 1.15  # inches


class Result(NamedTuple):
    """One retrieved document, best first in its list."""

    text: str
    image: "Image | None"
    cosine: float
    correct: bool


class GalleryRow(TypedDict):
    """A query, what it should find and what it found; ``Result`` or a plain tuple like it."""

    query_text: str
    query_image: "Image | None"
    answer_text: str
    answer_note: NotRequired[str]  # such as the rank of the answer
    results: "Sequence[Result | tuple[str, Image | None, float, bool]]"


def plot_gallery(rows: Sequence[GalleryRow], out: Path, title: str | None = None) -> Path:
    """One line per query: the query with its picture and its answer, then its best results.

    Right results have a green frame and ✓, wrong ones a red frame and ✗.

    Args:
        rows: queries, at most ``MAX_RESULTS`` results of each are drawn.
        out: file to write.
        title: of the figure.

    Raises:
        ValueError: there are no rows.
    """
    with figure_style(text_fonts()):
        return save(draw_gallery(rows, title), out)


def draw_gallery(rows: Sequence[GalleryRow], title: str | None) -> "Figure":
    """The figure of `plot_gallery`, to be drawn and rendered within `figure_style`."""
    if not rows:
        raise ValueError("rows is empty: a gallery needs at least one query")
    from matplotlib.figure import Figure

    results = [[Result(*result) for result in row["results"][:MAX_RESULTS]] for row in rows]
    columns = 1 + max(map(len, results))
    heights = [
        TEXT_HEIGHT + PICTURE_HEIGHT * _has_picture(row, found)
        for row, found in zip(rows, results, strict=True)
    ]
    figure = Figure(figsize=(CELL_WIDTH * columns, sum(heights) + 0.5), layout="constrained")
    grid = figure.subplots(
        len(rows), columns, squeeze=False, gridspec_kw={"height_ratios": heights}
    )
    for axes, row, found in zip(grid, rows, results, strict=True):
        _draw_query(axes[0], row, _has_picture(row, found))
        for place, (ax, result) in enumerate(zip(axes[1:], found, strict=False), start=1):
            _draw_result(ax, place, result, _has_picture(row, found))
        for spare in axes[1 + len(found) :]:
            spare.remove()
    if title:
        figure.suptitle(drawable(title), fontweight="bold")
    return figure


def has_pictures(rows: Sequence[GalleryRow]) -> bool:
    """Whether any query or result has one."""
    return any(_has_picture(row, [Result(*result) for result in row["results"]]) for row in rows)


def _has_picture(row: GalleryRow, results: Sequence[Result]) -> bool:
    return row["query_image"] is not None or any(result.image is not None for result in results)


def _draw_query(ax: "Axes", row: GalleryRow, picture: bool) -> None:
    _frame(ax, FAINT, 0.8)
    ax.set_facecolor("#F7F7F7")
    ax.set_title("query", fontsize=8, color=MUTED, fontweight="normal")
    top = _picture(ax, row["query_image"], picture)
    query = wrap_text(drawable(row["query_text"]), COLUMNS, 3)
    answer = wrap_text(drawable("answer: " + row["answer_text"]), COLUMNS, 2)
    note = "\n" + drawable(row["answer_note"]) if "answer_note" in row else ""
    _write(ax, top - 0.04, query, INK)
    _write(ax, 0.05, answer + note, RIGHT, "bottom")


def _draw_result(ax: "Axes", place: int, result: Result, picture: bool) -> None:
    colour, mark = (RIGHT, "✓") if result.correct else (WRONG, "✗")
    _frame(ax, colour, 1.8)
    heading = f"{mark} {place}   cos {result.cosine:.3f}"
    ax.set_title(heading, fontsize=8, color=colour, fontweight="normal")
    top = _picture(ax, result.image, picture)
    _write(ax, top - 0.04, wrap_text(drawable(result.text), COLUMNS, 5), INK)


def _frame(ax: "Axes", colour: str, width: float) -> None:
    ax.set(xticks=[], yticks=[], xlim=(0, 1), ylim=(0, 1))
    ax.grid(False)
    for spine in ax.spines.values():
        spine.set(visible=True, color=colour, linewidth=width)


def _picture(ax: "Axes", image: "Image | None", reserved: bool) -> float:
    """Draws a picture in the upper part of a cell; returns where the text begins."""
    share = PICTURE_HEIGHT / (PICTURE_HEIGHT + TEXT_HEIGHT) if reserved else 0.0
    if image is not None:
        small = image.convert("RGB")
        small.thumbnail((480, 320))
        inset = ax.inset_axes((0.03, 1.0 - share + 0.01, 0.94, share - 0.04))
        inset.imshow(np.asarray(small), interpolation="antialiased")
        inset.set_axis_off()
    return 1.0 - (share if image is not None else 0.0)


def _write(ax: "Axes", y: float, text: str, colour: str, align: str = "top") -> None:
    written = ax.text(0.04, y, text, fontsize=7.5, color=colour, va=align)
    written.set_in_layout(False)  # a line of very wide letters must not push the columns apart
