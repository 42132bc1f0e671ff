"""Files of TensorBoard's projector: vectors, what they stand for, and their thumbnails."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageColor, ImageDraw

from polyqwen.atomic_files import write_text
from polyqwen.report.text_layout import draw_text, drawable, pillow_font, text_fonts, wrap_text

COLUMNS = ("text", "task · side", "task", "side", "kind", "rank")  # the first labels points
FOLDER, CONFIG = "projector", "projector_config.pbtxt"
LONGEST = 120  # characters of a text
FRAME = 3  # pixels
PAPER, TEXT = "#FFFFFF", "#222222"
LETTERS = {"query": "Q", "document": "D"}
Line = tuple[str | int, ...]


class Cloud(NamedTuple):
    """Points of one embedding space.

    Attributes:
        vectors: (P, D).
        lines: (P) values of ``COLUMNS``.
        cards: (P) thumbnails, all of one size.
    """

    vectors: NDArray[np.float32]
    lines: Sequence[Line]
    cards: Sequence[Image.Image]


def write_cloud(cloud: Cloud, folder: Path, name: str) -> Path:
    """Writes ``projector/<name>/`` and a configuration that names all clouds of the folder.

    An older cloud of the same name is replaced: a resumed run repeats its last step.

    Args:
        cloud: the points.
        folder: of the run's event files.
        name: of the cloud, such as ``step_000400``; the last by name is shown first.

    Returns:
        The folder written.

    Raises:
        ValueError: no points, or not one line and card for each.
    """
    count = len(cloud.vectors)
    if not count or not count == len(cloud.lines) == len(cloud.cards):
        raise ValueError(
            f"{count} vectors, {len(cloud.lines)} lines, {len(cloud.cards)} cards: "
            "each point needs one of all"
        )
    out = Path(folder) / FOLDER / name
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    rows = ["\t".join(f"{value:.5g}" for value in vector) for vector in cloud.vectors]
    write_text(out / "vectors.tsv", "\n".join(rows) + "\n")
    lines = ["\t".join(_cell(value) for value in line) for line in [COLUMNS, *cloud.lines]]
    write_text(out / "metadata.tsv", "\n".join(lines) + "\n")
    sprite(list(cloud.cards)).quantize(256).save(out / "sprite.png", optimize=True)
    write_text(out / "size", str(cloud.cards[0].width))
    _write_config(Path(folder))
    return out


def _cell(value: str | int) -> str:
    """One line without tabs."""
    text = " ".join(str(value).split())
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"


def _write_config(folder: Path) -> None:
    """The text form of TensorBoard's ``ProjectorConfig``; whole or not there."""
    blocks = []
    for cloud in sorted((folder / FOLDER).iterdir(), reverse=True):
        if not (cloud / "size").is_file():
            continue  # torn
        size = int((cloud / "size").read_text(encoding="utf-8"))
        path = f"{FOLDER}/{cloud.name}"
        blocks.append(
            "embeddings {\n"
            f"  tensor_name: {json.dumps(cloud.name)}\n"
            f"  tensor_path: {json.dumps(f'{path}/vectors.tsv')}\n"
            f"  metadata_path: {json.dumps(f'{path}/metadata.tsv')}\n"
            "  sprite {\n"
            f"    image_path: {json.dumps(f'{path}/sprite.png')}\n"
            f"    single_image_dim: {size}\n    single_image_dim: {size}\n  }}\n}}\n"
        )
    write_text(folder / CONFIG, "".join(blocks))


def thumbnail(
    text: str, picture: "Image.Image | None", colour: str, side: str, size: int = 48
) -> Image.Image:
    """A card of ``size`` × ``size`` pixels, RGB.

    Args:
        text: of the content; drawn where there is no picture.
        picture: of the content.
        colour: of the frame, such as ``#0072B2``.
        side: "query" has a plain frame; "document" also a tinted ground, as documents of texts are
            otherwise like queries. Both have their first letter in the corner.
        size: pixels, >= 24.

    Raises:
        ValueError: too small to show anything.
    """
    if size < 24:
        raise ValueError(f"size={size} must be at least 24 pixels; 48 suits 1000 points")
    ground = PAPER if side == "query" else _tint(colour)
    card = Image.new("RGB", (size, size), ground)
    inner = size - 2 * FRAME
    if picture is not None:
        small = picture.convert("RGB")
        small.thumbnail((inner, inner))
        card.paste(small, ((size - small.width) // 2, (size - small.height) // 2))
    else:
        _write(card, text, size)
    draw = ImageDraw.Draw(card)
    draw.rectangle((0, 0, size - 1, size - 1), outline=colour, width=FRAME)
    _corner(draw, LETTERS.get(side, "?"), colour, size)
    return card


def sprite(cards: "list[Image.Image]") -> Image.Image:
    """All cards in rows of a square, row after row, as TensorBoard's projector wants them.

    Raises:
        ValueError: there are none.
    """
    if not cards:
        raise ValueError("cards is empty: a sprite needs at least one")
    size = cards[0].width
    columns = int((len(cards) - 1) ** 0.5) + 1
    sheet = Image.new("RGB", (columns * size, columns * size), PAPER)
    for i, card in enumerate(cards):
        sheet.paste(card, (i % columns * size, i // columns * size))
    return sheet


def _write(card: Image.Image, text: str, size: int) -> None:
    points = max(7, size // 6)
    wrapped = wrap_text(drawable(text) or "–", max(4, int(1.65 * size / points)), 4)
    for i, line in enumerate(wrapped.split("\n")):
        at = (FRAME + 2, FRAME + 1 + i * (points + 2))
        draw_text(ImageDraw.Draw(card), at, line, points, TEXT)


def _corner(draw: "ImageDraw.ImageDraw", letter: str, colour: str, size: int) -> None:
    box = max(10, size // 4)
    draw.rectangle((size - box, size - box, size - 1, size - 1), fill=colour)
    middle = (size - box / 2, size - box / 2)
    draw.text(middle, letter, fill=PAPER, font=pillow_font(text_fonts()[0], box - 3), anchor="mm")


def _tint(colour: str) -> tuple[int, ...]:
    return tuple(255 - (255 - value) // 5 for value in ImageColor.getrgb(colour))
