"""Galleries as pictures: queries beside what the model found for them."""

from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageOps

from polyqwen.atomic_files import atomic_write
from polyqwen.report.figure_style import FAINT, INK, MUTED, RIGHT, WRONG
from polyqwen.report.gallery import GalleryRow, Result
from polyqwen.report.text_layout import draw_text, drawable, wrap_text

MAX_RESULTS = 5
LEAST_LINES = 9  # of a query's band
WIDTH = 1400  # pixels of a file; `gallery_image` is drawn half as wide for TensorBoard
PICTURE, STRIP = 0.31, 0.16  # of the width: a query's picture, the pictures of its results

Line = tuple[str, str]  # text, color


def plot_gallery(rows: Sequence[GalleryRow], out: Path, title: str = "") -> Path:
    """Writes `gallery_image` as a PNG of many letters per line, and returns where.

    Raises:
        ValueError: there are no rows.
    """
    image = gallery_image(rows, title, WIDTH, font=17, result_lines=2)
    with atomic_write(Path(out)) as temporary:
        image.save(temporary, "PNG")
    return Path(out)


def gallery_image(
    rows: Sequence[GalleryRow],
    title: str = "",
    width: int = 700,
    font: int = 14,
    result_lines: int = 1,
) -> Image.Image:
    """One band per query: its picture; question, answer and rank; results, ✓ right or ✗ wrong.

    Pictures of results stand below their texts in frames, green or red. TensorBoard shows images a
    third of the window wide; at the default sizes the letters can be read there.

    Args:
        rows: queries, at least one; at most ``MAX_RESULTS`` results of each are drawn.
        title: one line above them.
        width: pixels.
        font: size of the letters in pixels.
        result_lines: lines of a result's text at most.

    Raises:
        ValueError: there are no rows.
    """
    if not rows:
        raise ValueError("rows is empty: a gallery needs at least one query")
    line, left = round(1.4 * font), font // 2
    beside = round(PICTURE * width) if any(row["query_image"] for row in rows) else 0
    strip = round(STRIP * width) if any(_result_pictures(row) for row in rows) else 0
    columns = int((width - beside - 2 * left) / (0.62 * font))
    texts = [_lines(row, columns, result_lines) for row in rows]
    text_height = line * max(LEAST_LINES, *map(len, texts))
    band = text_height + strip + 2 * left
    top = line + 2 * left if title else 0
    image = Image.new("RGB", (width, top + band * len(rows)), "white")
    draw = ImageDraw.Draw(image)
    draw_text(draw, (left, left), drawable(title), font, INK)
    for row, lines in zip(rows, texts, strict=True):
        draw.line((0, top, width, top), FAINT, 2)
        if row["query_image"] is not None:
            _paste(image, row["query_image"], (left, top + left, beside - left, band - 2 * left))
        for i, (text, color) in enumerate(lines):
            draw_text(draw, (beside + left, top + left + i * line), text, font, color)
        at = (beside + left, top + left + text_height, width - left, top + band - left)
        _draw_results(image, row, at, font)
        top += band
    return image


def _lines(row: GalleryRow, columns: int, result_lines: int) -> list[Line]:
    """The texts of a band, wrapped."""
    blocks = [
        (row["query_text"], INK, 3),
        ("→ " + row["answer_text"], RIGHT, 2),
        (row.get("answer_note", ""), MUTED, 1),
    ]
    for result in _results(row):
        mark, color = ("✓", RIGHT) if result.correct else ("✗", WRONG)
        blocks.append((f"{mark} {result.cosine:.3f} {result.text}", color, result_lines))
    return [
        (line, color)
        for text, color, most in blocks
        for line in wrap_text(drawable(text), columns, most).split("\n")
        if line
    ]


def _draw_results(
    image: Image.Image, row: GalleryRow, box: tuple[int, int, int, int], font: int
) -> None:
    """Pictures of the results, best first, each in a frame under its place."""
    left, top, right, bottom = box
    width = (right - left) // MAX_RESULTS
    draw = ImageDraw.Draw(image)
    for place, result in enumerate(_results(row)):
        if result.image is None:
            continue
        x = left + place * width
        mark, color = ("✓", RIGHT) if result.correct else ("✗", WRONG)
        draw_text(draw, (x, top), f"{mark} {place + 1}", font, color)
        frame = (x, top + round(1.4 * font), x + width - font // 2, bottom)
        _paste(image, result.image, (frame[0], frame[1], frame[2] - x, bottom - frame[1]))
        draw.rectangle(frame, outline=color, width=2)


def _paste(image: Image.Image, picture: Image.Image, box: tuple[int, int, int, int]) -> None:
    """A picture as large as fits a box (left, top, width, height), in its middle."""
    left, top, width, height = box
    small = ImageOps.contain(picture.convert("RGB"), (width, height))
    image.paste(small, (left + (width - small.width) // 2, top + (height - small.height) // 2))


def _results(row: GalleryRow) -> list[Result]:
    return [Result(*result) for result in row["results"][:MAX_RESULTS]]


def _result_pictures(row: GalleryRow) -> bool:
    return any(result.image is not None for result in _results(row))
