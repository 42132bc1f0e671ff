"""Pictures of writing: word lines in English, Vietnamese and Chinese, and small receipts.

Every word starts on the 28-pixel grid of visual tokens and a line is 28 pixels high. The words are
few, their combinations many: a test line is new, its words are not.
"""

import math
import random
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from polyqwen.data.generated.phrases import DRAWINGS
from polyqwen.data.generated.pictures import CELL, Mask, ink, paper, save

WORDS: dict[str, list[str]] = DRAWINGS["words"]
PRICES: dict[str, list[str]] = DRAWINGS["prices"]
INKS: list[list[int]] = DRAWINGS["inks"]
# strokes, polylines of points in the unit square, y downwards
CHARACTERS: dict[str, list[list[list[float]]]] = DRAWINGS["characters"]
GOODS = {language: words[:10] for language, words in WORDS.items()}  # the eatable ones
KINDS = ("en", "en", "vi", "vi", "zh", "receipt")  # with shares
FONT_SIZE = 18
FINE = 4  # characters are drawn this many times larger and averaged down

Lines = list[list[str]]  # words, line by line


@cache
def _font() -> ImageFont.FreeTypeFont:
    import matplotlib  # heavy, and only its folder of fonts is wanted

    path = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
    # The basic layout does not depend on the text-shaping library of the machine.
    return ImageFont.truetype(str(path), FONT_SIZE, layout_engine=ImageFont.Layout.BASIC)


@cache
def character(name: str) -> Mask:
    """The ink of one Chinese character in a cell of 28 × 28 pixels."""
    side = CELL * FINE
    margin, size = 2.5 * FINE, (CELL - 5) * FINE
    image = Image.new("L", (side, side))
    draw = ImageDraw.Draw(image)
    for stroke in CHARACTERS[name]:
        points = [(margin + size * x, margin + size * y) for x, y in stroke]
        draw.line(points, fill=255, width=2 * FINE, joint="curve")
    small = image.resize((CELL, CELL), Image.Resampling.BOX)
    return np.asarray(small, dtype=np.float32) / 255


@cache
def word_mask(word: str) -> Mask:
    """The ink of one word, one cell high and as many cells wide as it needs."""
    if word in CHARACTERS:
        return character(word)
    font = _font()
    width = math.ceil((font.getlength(word) + 4) / CELL) * CELL
    image = Image.new("L", (width, CELL))
    ImageDraw.Draw(image).text((1, 21), word, fill=255, font=font, anchor="ls")
    return np.asarray(image, dtype=np.float32) / 255


def write_lines(lines: Lines, rng: np.random.Generator) -> np.ndarray:
    """The picture of the lines, float32 [28 · lines, 28 · cells, 3], ink and position varying."""
    masks = [[word_mask(word) for word in line] for line in lines]
    widths = [sum(mask.shape[1] for mask in line) for line in masks]
    sheet = paper(CELL * len(lines), max(widths), rng)
    colour = np.asarray(INKS[rng.integers(len(INKS))], np.float32) + rng.integers(0, 25, size=3)
    for row, line in enumerate(masks):
        left = 0
        for mask in line:
            down, right = rng.integers(-1, 2), rng.integers(0, 3)
            ink(sheet, np.roll(mask, (down, right), (0, 1)), CELL * row, left, colour)
            left += mask.shape[1]
    return sheet


def _compose(kind: str, rng: random.Random) -> tuple[str, Lines, str]:
    """Language, words and transcription of a new picture."""
    if kind == "zh":
        signs = rng.sample(list(CHARACTERS), rng.randint(2, 4))
        return "zh", [signs], "".join(signs)
    if kind == "receipt":
        language = rng.choice(("en", "vi"))
        goods = rng.sample(GOODS[language], rng.randint(2, 4))
        lines = [[item, rng.choice(PRICES[language])] for item in goods]
        return language, lines, "\n".join(" ".join(line) for line in lines)
    line = rng.sample(WORDS[kind], rng.randint(2, 3))
    return kind, [line], " ".join(line)


def ocr_rows(
    rng: random.Random, count: int, used: set[str], root: Path, folder: str
) -> Iterator[dict[str, Any]]:
    """Rows with image, text, lang and source; writes their pictures.

    Args:
        rng: the source of all choices.
        count: number of rows.
        used: transcriptions of all rows so far, of any split.
        root: the data set's folder.
        folder: where the pictures go, relative to root; made if missing.
    """
    (root / folder).mkdir(parents=True, exist_ok=True)
    grain = np.random.default_rng(rng.getrandbits(64))
    made = 0
    while made < count:
        kind = rng.choice(KINDS)
        language, lines, text = _compose(kind, rng)
        if text in used:
            continue
        used.add(text)
        image = f"{folder}/{made:06d}.png"
        save(write_lines(lines, grain), root / image, text, grain)
        made += 1
        yield {
            "image": image,
            "text": text,
            "lang": language,
            "source": "generated/receipt" if kind == "receipt" else "generated/line",
        }
