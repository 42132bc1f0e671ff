"""Workloads: pairs of seeded lengths and pictures, made in memory.

W1 texts of fixed length, W2 pictures with a question against a text, W3 mixed lengths where half of
all contents have a picture. The published sizes are a GPU's (`GPU`); a CPU takes the same shapes,
texts a quarter and pictures a sixteenth as long (`CPU`), with a model that is small in proportion.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from benchmarks.suite.environment import ROOT
from polyqwen.data.collator import Collator
from polyqwen.data.images.images import Pictures
from polyqwen.data.rows.task import Task
from polyqwen.data.tables.dataset import Row, Side
from polyqwen.data.tables.labels import LabelBook
from polyqwen.data.tokens import Tokens

TASK = "pairs"
FIRST_ID, LAST_ID = 300, 1500  # of plain text in the tiny tokenizer


class Sizes(NamedTuple):
    """Lengths in tokens."""

    short: int  # text of W1's queries
    long: int  # text of W1's documents
    question: int  # text beside W2's pictures
    side: int  # W2's picture is square: visual tokens along each side
    answer: int  # text of W2's documents
    text_median: float
    text_cap: int
    visual_median: float
    visual_cap: int


GPU = Sizes(64, 128, 32, 16, 64, 48.0, 512, 320.0, 1024)
CPU = Sizes(16, 32, 8, 4, 16, 12.0, 128, 20.0, 64)
SPREAD = (0.8, 0.6)  # of the logarithms of text and picture lengths
ASPECTS = (1.0, 4 / 3, 3 / 4, 16 / 9, 2**-0.5)  # height to width


class NoisePictures(Pictures):
    """Pictures that exist by name alone: seeded noise of any size."""

    def pixels(self, name: str, target: tuple[int, int]) -> NDArray[np.uint8]:
        """(height, width, 3) uint8."""
        random = np.random.default_rng(int(name))
        return random.integers(0, 256, (*target, 3), dtype=np.uint8)


def collator(chunk_tokens: int, names: Sequence[str] = (TASK,)) -> Collator:
    """The project's own, over noise, for one task or several."""
    fields = {"query_text": "q", "document_text": "d"}
    tasks = {name: Task(fields, prefix=f"<{name}>", visual_tokens=1 << 20) for name in names}
    prefixes = {name: task.prefix for name, task in tasks.items()}
    return Collator(
        Tokens(str(ROOT / "polyqwen/assets/tiny_tokenizer"), prefixes=prefixes),
        NoisePictures(ROOT),
        visual_tokens={name: task.visual_tokens for name, task in tasks.items()},
        book=LabelBook(tasks),
        chunk_tokens=chunk_tokens,
    )


def pairs(
    name: str, count: int, sizes: Sizes, seed: int = 0, tasks: Sequence[str] = (TASK,)
) -> list[Row]:
    """Rows of a workload; no two contents are alike.

    Args:
        name: ``W1``, ``W2`` or ``W3``.
        count: pairs, >= 1.
        sizes: `CPU` or `GPU`.
        seed: of lengths, ids and pictures.
        tasks: rows go to them in turn.
    """
    random = np.random.default_rng(seed)
    if name == "W1":
        grids = [(0, 0)] * (2 * count)
        texts = [sizes.short, sizes.long] * count
    elif name == "W2":
        grids = [(sizes.side, sizes.side), (0, 0)] * count
        texts = [sizes.question, sizes.answer] * count
    elif name == "W3":
        shown = random.permutation(np.arange(2 * count) % 2 == 0)
        areas = _lognormal(random, sizes.visual_median, SPREAD[1], 4, sizes.visual_cap, 2 * count)
        grids = [_grid(a, random) if s else (0, 0) for a, s in zip(areas, shown, strict=True)]
        cap = sizes.text_cap
        texts = _lognormal(random, sizes.text_median, SPREAD[0], 1, cap, 2 * count)
    else:
        raise ValueError(f"workload {name!r} is unknown; choose W1, W2 or W3")
    sides = [
        _side(i, t, g, random, seed) for i, (t, g) in enumerate(zip(texts, grids, strict=True))
    ]
    return [
        Row(tasks[i % len(tasks)], i, sides[2 * i], sides[2 * i + 1], negatives=(), score=None)
        for i in range(count)
    ]


def _lognormal(
    random: np.random.Generator, median: float, spread: float, low: int, high: int, count: int
) -> list[int]:
    drawn = median * np.exp(spread * random.standard_normal(count))
    return np.clip(np.rint(drawn), low, high).astype(int).tolist()


def _grid(area: int, random: np.random.Generator) -> tuple[int, int]:
    """Visual tokens down and across, about ``area`` in all."""
    down = max(1, round((area * random.choice(ASPECTS)) ** 0.5))
    return down, max(1, area // down)


def _side(
    number: int, text: int, grid: tuple[int, int], random: np.random.Generator, seed: int
) -> Side:
    ids = tuple(random.integers(FIRST_ID, LAST_ID, text).tolist())
    key = seed << 32 | number
    if not grid[0]:
        return Side(ids, None, (0, 0), key)
    return Side(ids, str(key), (28 * grid[0], 28 * grid[1]), key)


def patches(rows: Sequence[Row], make: Collator) -> list[int]:
    """Patches of every picture."""
    sides = [side for row in rows for side in (row.query, row.document) if side.image is not None]
    return [side.size[0] * side.size[1] // make.pictures.patch_size**2 for side in sides]


def lengths(rows: Sequence[Row], make: Collator) -> list[int]:
    """Tokens of every content, queries and documents in turn."""
    found = []
    for row in rows:
        for side in (row.query, row.document):
            visual = side.size[0] * side.size[1] // make.pictures.cell**2
            found.append(len(make.tokens.frame(row.task, side.ids, visual)))
    return found
