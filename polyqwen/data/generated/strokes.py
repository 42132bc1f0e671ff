"""Chinese characters drawn by hand as strokes, because no CJK font can be taken for granted.

A character is a list of polylines in the unit square, y downwards.
"""

from functools import cache

import numpy as np
from PIL import Image, ImageDraw

from polyqwen.data.generated.pictures import CELL, Mask

Point = tuple[float, float]

_FINE = 4


def _across(y: float, left: float = 0.1, right: float = 0.9) -> list[Point]:
    return [(left, y), (right, y)]


def _down(x: float, top: float = 0.08, bottom: float = 0.94) -> list[Point]:
    return [(x, top), (x, bottom)]


def _frame(left: float, top: float, right: float, bottom: float) -> list[Point]:
    return [(left, top), (right, top), (right, bottom), (left, bottom), (left, top)]


_LEFT_LEG: list[Point] = [(0.5, 0.38), (0.36, 0.68), (0.08, 0.93)]
_RIGHT_LEG: list[Point] = [(0.5, 0.38), (0.66, 0.7), (0.93, 0.93)]

CHARACTERS: dict[str, list[list[Point]]] = {
    "一": [_across(0.5, 0.06, 0.94)],
    "二": [_across(0.26, 0.2, 0.8), _across(0.8, 0.06, 0.94)],
    "三": [_across(0.16), _across(0.5, 0.2, 0.8), _across(0.86, 0.05, 0.95)],
    "十": [_across(0.46, 0.06, 0.94), _down(0.5)],
    "口": [_frame(0.18, 0.22, 0.82, 0.84)],
    "日": [_frame(0.24, 0.08, 0.76, 0.92), _across(0.5, 0.24, 0.76)],
    "田": [_frame(0.12, 0.14, 0.88, 0.9), _across(0.52, 0.12, 0.88), _down(0.5, 0.14, 0.9)],
    "山": [_down(0.5, 0.08, 0.86), [(0.14, 0.4), (0.14, 0.86), (0.86, 0.86), (0.86, 0.4)]],
    "中": [_frame(0.16, 0.26, 0.84, 0.64), _down(0.5, 0.05, 0.96)],
    "大": [_across(0.36, 0.08, 0.92), [(0.5, 0.06), *_LEFT_LEG], _RIGHT_LEG],
    "小": [_down(0.5, 0.06, 0.9), [(0.28, 0.36), (0.1, 0.72)], [(0.72, 0.36), (0.9, 0.72)]],
    "木": [_across(0.34, 0.08, 0.92), _down(0.5, 0.05, 0.96), _LEFT_LEG, _RIGHT_LEG],
    "土": [_across(0.44, 0.22, 0.78), _down(0.5, 0.1, 0.88), _across(0.88, 0.06, 0.94)],
    "王": [
        _across(0.14, 0.14, 0.86),
        _across(0.5, 0.2, 0.8),
        _across(0.88, 0.06, 0.94),
        _down(0.5, 0.14, 0.88),
    ],
    "工": [_across(0.2, 0.16, 0.84), _down(0.5, 0.2, 0.84), _across(0.84, 0.06, 0.94)],
    "人": [[(0.5, 0.06), *_LEFT_LEG], _RIGHT_LEG],
    "上": [_down(0.46, 0.08, 0.88), _across(0.44, 0.46, 0.84), _across(0.88, 0.06, 0.94)],
    "下": [_across(0.14, 0.06, 0.94), _down(0.46, 0.14, 0.94), [(0.5, 0.4), (0.78, 0.6)]],
    "目": [
        _frame(0.26, 0.06, 0.74, 0.94),
        _across(0.35, 0.26, 0.74),
        _across(0.65, 0.26, 0.74),
    ],
    "月": [
        [(0.28, 0.94), (0.34, 0.6), (0.34, 0.08), (0.78, 0.08), (0.78, 0.94), (0.64, 0.88)],
        _across(0.36, 0.34, 0.78),
        _across(0.62, 0.34, 0.78),
    ],
}


@cache
def character(name: str) -> Mask:
    """The ink of one character in a cell of 28 × 28 pixels."""
    side = CELL * _FINE
    margin, size = 2.5 * _FINE, (CELL - 5) * _FINE
    image = Image.new("L", (side, side))
    draw = ImageDraw.Draw(image)
    for stroke in CHARACTERS[name]:
        points = [(margin + size * x, margin + size * y) for x, y in stroke]
        draw.line(points, fill=255, width=2 * _FINE, joint="curve")
    small = image.resize((CELL, CELL), Image.Resampling.BOX)
    return np.asarray(small, dtype=np.float32) / 255
