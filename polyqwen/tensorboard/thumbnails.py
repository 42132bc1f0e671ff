"""Small square cards of contents: a picture or the first words, framed in the task's colour."""

import unicodedata
from functools import cache
from typing import TYPE_CHECKING

from PIL import Image, ImageDraw, ImageFont

from polyqwen.report.text_layout import drawable, text_fonts, wrap_text

if TYPE_CHECKING:
    from PIL.ImageFont import FreeTypeFont
    from PIL.ImageFont import ImageFont as BitmapFont

FRAME = 3  # pixels
PAPER, TEXT = "#FFFFFF", "#222222"
LETTERS = {"query": "Q", "document": "D"}


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
    at = (FRAME + 2, FRAME + 1)
    ImageDraw.Draw(card).multiline_text(
        at, wrapped, fill=TEXT, font=_font(points, _family(wrapped)), spacing=1
    )


def _corner(draw: "ImageDraw.ImageDraw", letter: str, colour: str, size: int) -> None:
    box = max(10, size // 4)
    draw.rectangle((size - box, size - box, size - 1, size - 1), fill=colour)
    middle = (size - box / 2, size - box / 2)
    draw.text(middle, letter, fill=PAPER, font=_font(box - 3, text_fonts()[0]), anchor="mm")


def _tint(colour: str) -> tuple[int, int, int]:
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return tuple(255 - (255 - value) // 5 for value in (red, green, blue))  # type: ignore[return-value]


def _family(text: str) -> str:
    """The Chinese font, if there is one, for a text that has such letters."""
    wide = any(unicodedata.east_asian_width(character) in "WF" for character in text)
    return text_fonts()[-1 if wide else 0]


@cache
def _font(points: int, family: str) -> "FreeTypeFont | BitmapFont":
    from matplotlib.font_manager import FontProperties, findfont

    return ImageFont.truetype(findfont(FontProperties(family=[family])), points)
