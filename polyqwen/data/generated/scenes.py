"""Scenes: two to four objects in a 2 × 2 grid, no two of one shape or one colour.

An object fills one cell of 28 × 28 pixels, that is one visual token of Qwen2-VL. A scene is known
by its *set* of objects; where each one lies is chance and no question asks for it.
"""

import math
import random
from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageChops, ImageDraw

from polyqwen.data.generated.pictures import CELL, Mask, ink, paper

SHAPES = ("circle", "square", "triangle", "star", "cross", "moon", "diamond", "heart")
COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (220, 25, 25),
    "orange": (250, 135, 0),
    "yellow": (235, 215, 0),
    "green": (20, 150, 50),
    "blue": (40, 80, 230),
    "purple": (130, 35, 170),
    "pink": (250, 120, 190),
    "black": (15, 15, 15),
}
TEXTURES = ("solid", "striped", "dotted", "outline")
CELLS = 4
GAP_INK = 0.25  # between stripes and in dots, so that thin shapes stay whole
_FINE = 4  # masks are drawn this many times larger and averaged down


class Thing(NamedTuple):
    """One object of a scene, named by its words in SHAPES, COLOURS and TEXTURES."""

    shape: str
    colour: str
    texture: str


Scene = frozenset[Thing]


def new_scene(rng: random.Random, used: set[Scene], sizes: Sequence[int]) -> tuple[Thing, ...]:
    """A scene that is not in ``used``, and is from now on; objects in random order.

    Args:
        rng: the source of all choices.
        used: scenes drawn so far.
        sizes: numbers of objects, one of them taken at random; 1 to 4.
    """
    while True:
        size = rng.choice(sizes)
        shapes = rng.sample(SHAPES, size)
        colours = rng.sample(list(COLOURS), size)
        things = tuple(
            Thing(shape, colour, rng.choice(TEXTURES))
            for shape, colour in zip(shapes, colours, strict=True)
        )
        if frozenset(things) not in used:
            used.add(frozenset(things))
            return things


def _polygon(shape: str) -> list[tuple[float, float]]:
    """Corners in the square [-1, 1]², y downwards."""
    if shape == "square":
        return [(-0.85, -0.85), (0.85, -0.85), (0.85, 0.85), (-0.85, 0.85)]
    if shape == "triangle":
        return [(0, -0.95), (0.95, 0.85), (-0.95, 0.85)]
    if shape == "diamond":
        return [(0, -1), (0.72, 0), (0, 1), (-0.72, 0)]
    if shape == "cross":
        a, b = 0.34, 0.95
        half = [(-a, -b), (a, -b), (a, -a), (b, -a), (b, a), (a, a)]
        return half + [(-x, -y) for x, y in half]
    if shape == "star":
        turns = [math.pi * k / 5 - math.pi / 2 for k in range(10)]
        radii = [1.05 if k % 2 == 0 else 0.5 for k in range(10)]
        return [(r * math.cos(t), r * math.sin(t)) for r, t in zip(radii, turns, strict=True)]
    if shape == "heart":
        turns = [2 * math.pi * k / 40 for k in range(40)]
        return [
            (
                math.sin(t) ** 3,
                -(13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t)) / 15 + 0.1,
            )
            for t in turns
        ]
    raise ValueError(f"no corners known for shape {shape!r}")


def _filled(shape: str, radius: float) -> Image.Image:
    """The whole shape in white on a black fine cell; radius in fine pixels."""
    side, middle = CELL * _FINE, CELL * _FINE / 2
    image = Image.new("L", (side, side))
    draw = ImageDraw.Draw(image)

    def disc(x: float, y: float, r: float, fill: int) -> None:
        draw.ellipse((x - r, y - r, x + r, y + r), fill=fill)

    if shape == "circle":
        disc(middle, middle, radius * 0.95, 255)
    elif shape == "moon":
        disc(middle, middle, radius, 255)
        disc(middle + radius * 0.55, middle - radius * 0.25, radius * 0.72, 0)
    else:
        corners = [(middle + radius * x, middle + radius * y) for x, y in _polygon(shape)]
        draw.polygon(corners, fill=255)
    return image


@cache
def mask(shape: str, texture: str, radius: int) -> Mask:
    """The ink of one object in its cell; radius in pixels, at most 12."""
    fine = radius * _FINE
    whole = _filled(shape, fine)
    side = whole.size[0]
    if texture == "outline":
        inner = np.asarray(whole)
        for axis, step in ((0, 1), (0, -1), (1, 1), (1, -1)):
            for _ in range(2 * _FINE):  # a line of about two pixels
                inner = np.minimum(inner, np.roll(inner, step, axis))
        whole = ImageChops.subtract(whole, Image.fromarray(inner))
    elif texture in ("striped", "dotted"):
        y, x = np.mgrid[:side, :side] / _FINE
        if texture == "striped":
            keep = (x + y) % 7 < 3.5
        else:  # round holes in a grid
            keep = (x % 6 - 3) ** 2 + (y % 6 - 3) ** 2 > 1.8**2
        faint = np.where(keep, 255, 255 * GAP_INK).astype(np.uint8)
        whole = ImageChops.multiply(whole, Image.fromarray(faint))
    small = whole.resize((CELL, CELL), Image.Resampling.BOX)
    return np.asarray(small, dtype=np.float32) / 255


def draw_scene(things: tuple[Thing, ...], rng: np.random.Generator) -> np.ndarray:
    """The picture, float32 [56, 56, 3]: random cells, sizes, shades and one-pixel shifts."""
    sheet = paper(2 * CELL, 2 * CELL, rng)
    cells = rng.permutation(CELLS)[: len(things)]
    for thing, cell in zip(things, cells, strict=True):
        shade = np.asarray(COLOURS[thing.colour], np.float32) + rng.integers(-12, 13, size=3)
        down, right = rng.integers(-1, 2, size=2)
        shape = mask(thing.shape, thing.texture, int(rng.integers(10, 13)))
        shifted = np.roll(shape, (down, right), (0, 1))
        ink(sheet, shifted, int(cell) // 2 * CELL, int(cell) % 2 * CELL, shade)
    return sheet


def describe(things: tuple[Thing, ...]) -> str:
    """The objects in alphabetical order, one note for every picture of the same scene."""
    return "; ".join(sorted(f"{x.colour} {x.texture} {x.shape}" for x in things))
