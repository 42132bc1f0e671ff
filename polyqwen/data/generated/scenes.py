"""Scenes: one to four objects in a 2 × 2 grid, no two of one shape or one colour.

An object fills one cell of 28 × 28 pixels, that is one visual token of Qwen2-VL. A scene is known
by its *set* of objects; where each one lies is chance and no question asks for it.
"""

import math
import random
import zlib
from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from polyqwen.data.generated.phrases import DRAWINGS
from polyqwen.data.generated.pictures import CELL, Mask, ink, paper

SHAPES: list[str] = DRAWINGS["shapes"]
COLOURS: dict[str, list[int]] = DRAWINGS["colours"]
CELLS = 4
_FINE = 4  # masks are drawn this many times larger and averaged down


class Thing(NamedTuple):
    """One object of a scene, named by its words in SHAPES and COLOURS."""

    shape: str
    colour: str


Scene = frozenset[Thing]


def split_of(scene: Scene) -> str:
    """The only split that may show this set of objects; eight in ten belong to ``train``."""
    place = zlib.crc32(describe(tuple(scene)).encode()) % 10
    return {0: "dev", 1: "test"}.get(place, "train")


def new_scene(rng: random.Random, split: str, sizes: Sequence[int]) -> tuple[Thing, ...]:
    """A scene of one split, objects in random order.

    Args:
        rng: the source of all choices.
        split: train, dev or test.
        sizes: numbers of objects, one of them taken at random; 1 to 4.
    """
    size = rng.choice(sizes)
    while True:
        shapes = rng.sample(SHAPES, size)
        colours = rng.sample(list(COLOURS), size)
        things = tuple(map(Thing, shapes, colours))
        if split_of(frozenset(things)) == split:
            return things


def _polygon(shape: str) -> list[tuple[float, float]]:
    """Corners in the square [-1, 1]², y downwards."""
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
    return [(x, y) for x, y in DRAWINGS["polygons"][shape]]


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
def mask(shape: str, radius: int) -> Mask:
    """The ink of one object in its cell; radius in pixels, at most 13."""
    fine = np.asarray(_filled(shape, radius * _FINE), dtype=np.float32) / 255
    return fine.reshape(CELL, _FINE, CELL, _FINE).mean((1, 3))


def draw_scene(things: tuple[Thing, ...], rng: np.random.Generator) -> np.ndarray:
    """The picture, float32 [56, 56, 3]: random cells and shades."""
    sheet = paper(2 * CELL, 2 * CELL, rng)
    cells = rng.permutation(CELLS)[: len(things)]
    for thing, cell in zip(things, cells, strict=True):
        shade = np.asarray(COLOURS[thing.colour], np.float32) + rng.integers(-5, 6, size=3)
        top, left = int(cell) // 2 * CELL, int(cell) % 2 * CELL
        ink(sheet, mask(thing.shape, 12), top, left, shade)
    return sheet


def describe(things: tuple[Thing, ...]) -> str:
    """The objects in alphabetical order, one note for every picture of the same scene."""
    return "; ".join(sorted(f"{x.colour} {x.shape}" for x in things))
