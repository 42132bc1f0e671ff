"""Text of any language in figures: wrapping by width, and what to do about missing glyphs."""

import unicodedata
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from rich.cells import cell_len, chop_cells

if TYPE_CHECKING:
    from PIL.ImageDraw import ImageDraw
    from PIL.ImageFont import FreeTypeFont

CJK_FONTS = (
    "Noto Sans CJK SC",
    "Noto Sans CJK JP",
    "Noto Sans SC",
    "Source Han Sans SC",
    "WenQuanYi Micro Hei",
    "WenQuanYi Zen Hei",
    "Microsoft YaHei",
    "SimHei",
    "PingFang SC",
    "Hiragino Sans GB",
    "Droid Sans Fallback",
    "Arial Unicode MS",
)

CJK_FILES = ("sanscjk", "wqy", "notosanssc", "sourcehansans")  # parts of files' names


@cache
def text_fonts() -> tuple[str, ...]:
    """DejaVu Sans, and the first installed font with Chinese glyphs if there is one."""
    from matplotlib.font_manager import findSystemFonts, fontManager

    installed = {font.name for font in fontManager.ttflist}
    if not installed & set(CJK_FONTS):  # matplotlib's list is kept, and older than a new font
        for path in findSystemFonts():
            if any(word in Path(path).name.lower() for word in CJK_FILES):
                fontManager.addfont(path)
        installed = {font.name for font in fontManager.ttflist}
    return ("DejaVu Sans", *[name for name in CJK_FONTS if name in installed][:1])


@cache
def _characters_of(family: str) -> frozenset[int]:
    from matplotlib.font_manager import get_font

    return frozenset(get_font(_file_of(family)).get_charmap())


def _file_of(family: str) -> str:
    from matplotlib.font_manager import FontProperties, findfont

    return str(findfont(FontProperties(family=[family])))


@cache
def _known_characters() -> frozenset[int]:
    return frozenset().union(*map(_characters_of, text_fonts()))


def drawable(text: str) -> str:
    """Text that the available fonts can draw.

    Composed to NFC, since Vietnamese in combining marks is drawn with marks out of place; spaces
    and line breaks become single spaces and invisible characters go. A character without a glyph
    becomes its code point, such as ``U+4E2D``: readable, searchable and free of the warning that
    matplotlib gives for every single one.
    """
    known = _known_characters()
    shown = []
    for character in " ".join(unicodedata.normalize("NFC", text).split()):
        if ord(character) in known and unicodedata.category(character) not in ("Cc", "Cf"):
            shown.append(character)
        elif unicodedata.category(character) not in ("Cc", "Cf", "Mn"):
            shown.append(f" U+{ord(character):04X} ")
    return " ".join("".join(shown).split())


def wrap_text(text: str, width: int, max_lines: int = 4) -> str:
    """Breaks a text into at most ``max_lines`` lines of ``width`` columns; the rest becomes "…".

    Breaks at spaces where it can, and inside words that are longer than a line, which is how text
    without spaces is written anyway.

    Raises:
        ValueError: ``width`` is below 4 or ``max_lines`` below 1.
    """
    if width < 4 or max_lines < 1:
        raise ValueError(f"width={width} must be 4 or more and max_lines={max_lines} 1 or more")
    lines = [""]
    for word in text.split():
        joined = f"{lines[-1]} {word}" if lines[-1] else word
        if cell_len(joined) <= width:
            lines[-1] = joined
            continue
        lines = (lines if lines[-1] else lines[:-1]) + chop_cells(word, width)
    if len(lines) > max_lines:
        last = chop_cells(lines[max_lines - 1], width - 1)[0]
        lines = [*lines[: max_lines - 1], last + "…"]
    return "\n".join(lines)


def draw_text(draw: "ImageDraw", at: tuple[float, float], text: str, size: int, color: str) -> None:
    """Draws one line with Pillow, every character in the first font that has it.

    Args:
        draw: of the image.
        at: where the line begins, its left upper corner.
        text: as `drawable` leaves it.
        size: of the letters in pixels.
        color: such as ``#222222``.
    """
    x, y = at
    for family, characters in groupby(text, _family_of):
        run, font = "".join(characters), pillow_font(family, size)
        draw.text((x, y + size), run, fill=color, font=font, anchor="ls")
        x += font.getlength(run)


def _family_of(character: str) -> str:
    known = (name for name in text_fonts() if ord(character) in _characters_of(name))
    return next(known, text_fonts()[0])


@cache
def pillow_font(family: str, size: int) -> "FreeTypeFont":
    """A font of matplotlib's for Pillow, ``size`` in pixels."""
    from PIL import ImageFont

    return ImageFont.truetype(_file_of(family), size)
