"""Rows to a batch: prefixes and placeholders, every content once, short ones with short ones."""

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from polyqwen.data.batch import Batch, TaskBatch
from polyqwen.data.images.images import Pictures
from polyqwen.data.tables.dataset import Row, Side
from polyqwen.data.tables.labels import LabelBook
from polyqwen.data.tokens import Tokens
from polyqwen.models.encoder import Chunk, Images

GREY = 127


class _Picture(NamedTuple):
    """A picture of the batch at the size it is shown in."""

    name: str
    grid: tuple[int, int]  # visual tokens down and across
    grey: bool


class _Content(NamedTuple):
    """A framed content: its ids, and where its picture stands."""

    task: int  # number of its task; that of the first one that shares it
    ids: list[int]
    grid: tuple[int, int]  # visual tokens down and across; (0, 0) without a picture
    visual_start: int  # row of its first visual token among the batch's


class Collator:
    """Builds batches; called in loader workers.

    Args:
        tokens: tokenizer and prefixes.
        pictures: opens and cuts the pictures.
        visual_tokens: task → largest picture in visual tokens.
        book: tells which losses a partially labelled row takes part in; its tasks are the run's.
        separate: embed a text once for each of its tasks instead of once for all, for encoders
            with a part per task.
        chunk_tokens: padded tokens that one encoder pass may take, > 0. Fewer mean less padding
            and less memory at once, more mean fewer passes.
        pad_to_multiple: round each pass's length up to a multiple of this, > 0; kernels like
            multiples of 8 and more, and compiled models meet fewer lengths.

    Raises:
        ValueError: a number is out of range.
    """

    def __init__(
        self,
        tokens: Tokens,
        pictures: Pictures,
        *,
        visual_tokens: dict[str, int],
        book: LabelBook,
        separate: bool = False,
        chunk_tokens: int = 4096,
        pad_to_multiple: int = 1,
    ) -> None:
        for name, value in (("chunk_tokens", chunk_tokens), ("pad_to_multiple", pad_to_multiple)):
            if value < 1:
                raise ValueError(f"data.{name} must be at least 1, got {value}")
        self.tokens = tokens
        self.pictures = pictures
        self.visual_tokens = visual_tokens
        self.book = book
        self.separate = separate
        self.chunk_tokens = chunk_tokens
        self.pad_to_multiple = pad_to_multiple
        # tasks that frame a content alike share it; each stands for itself where they do not
        first: dict[tuple[object, ...], str] = {}
        names = list(visual_tokens)
        self._like = {
            name: name
            if separate
            else first.setdefault((tokens.prefix(name), visual_tokens[name]), name)
            for name in names
        }
        self._number = {name: i for i, name in enumerate(names)}

    def __call__(self, rows: Sequence[Row], only: str | None = None) -> Batch:
        """A batch of the rows and all tasks they have a part in, or of one of these tasks."""
        uses: dict[str, list[Row]] = {}
        for row in rows:
            for task in self.book.tasks_of(row.task, row.labels):
                if only in (None, task):
                    uses.setdefault(task, []).append(row)
        sides: dict[tuple[str, Side], int] = {}  # in order of first sight
        for task, own in uses.items():
            for row in own:
                for side in (row.query, row.document, *row.negatives):
                    sides.setdefault((self._like[task], side), len(sides))
        images, contents = self._contents(list(sides))
        lengths = np.array([len(content.ids) for content in contents])
        order = np.argsort(lengths, kind="stable")
        chunks = [
            self._chunk([contents[i] for i in part]) for part in self._cut(order, lengths[order])
        ]
        place = np.empty_like(order)
        place[order] = np.arange(len(order))
        index = {key: int(place[i]) for key, i in sides.items()}
        tasks = {task: self._task_batch(task, own, index) for task, own in uses.items()}
        return Batch(chunks, images, tasks)

    def _contents(self, sides: Sequence[tuple[str, Side]]) -> tuple[Images | None, list[_Content]]:
        """Opens each distinct picture once and frames all contents."""
        shown = [self._picture(task, side) for task, side in sides]
        starts: dict[_Picture, int] = {}
        total = 0
        # pictures of one size follow each other: the vision tower takes them in one call
        for picture in sorted({p for p in shown if p}, key=lambda p: (p.grid, p.name, p.grey)):
            starts[picture] = total
            total += picture.grid[0] * picture.grid[1]
        contents = []
        for (task, side), shows in zip(sides, shown, strict=True):
            grid, start = (shows.grid, starts[shows]) if shows else ((0, 0), 0)
            ids = self.tokens.frame(side.prefix or task, side.ids, grid[0] * grid[1])
            contents.append(_Content(self._number[task], ids, grid, start))
        if not starts:
            return None, contents
        merge = self.pictures.merge_size
        patches = np.concatenate([self.pictures.patches(self._pixels(p)) for p in starts])
        grids = [(1, p.grid[0] * merge, p.grid[1] * merge) for p in starts]
        lengths = [math.prod(grid) for grid in grids]
        return Images(torch.from_numpy(patches), torch.tensor(grids), lengths), contents

    def _picture(self, task: str, side: Side) -> _Picture | None:
        if side.image is None:
            return None
        height, width = self.pictures.target_size(side.size, self.visual_tokens[task])
        cell = self.pictures.cell
        return _Picture(side.image, (height // cell, width // cell), side.grey)

    def _pixels(self, picture: _Picture) -> NDArray[np.uint8]:
        height, width = (cells * self.pictures.cell for cells in picture.grid)
        if picture.grey:
            return np.full((height, width, 3), GREY, dtype=np.uint8)
        return self.pictures.pixels(picture.name, (height, width))

    def _cut(self, order: NDArray[np.int64], lengths: NDArray[np.int64]) -> list[list[int]]:
        """Cuts contents of rising length so that rows × longest stays within `chunk_tokens`."""
        parts: list[list[int]] = [[]]
        for content, length in zip(order.tolist(), lengths.tolist(), strict=True):
            if parts[-1] and (len(parts[-1]) + 1) * self._padded(length) > self.chunk_tokens:
                parts.append([])
            parts[-1].append(content)
        return parts

    def _padded(self, length: int) -> int:
        return -(-length // self.pad_to_multiple) * self.pad_to_multiple

    def _chunk(self, contents: list[_Content]) -> Chunk:
        longest = self._padded(len(contents[-1].ids))
        lengths = [len(content.ids) for content in contents]
        mask = np.arange(longest) < np.array(lengths)[:, None]  # (contents, longest)
        ids = np.full(mask.shape, self.tokens.pad_id, dtype=np.int64)
        positions = np.zeros((3, *mask.shape), dtype=np.int64)
        visual = []
        for i, (content, size) in enumerate(zip(contents, lengths, strict=True)):
            ids[i, :size] = content.ids
            start = size
            if content.grid[0]:
                assert self.tokens.image_id is not None, "the tokenizer knows no pictures"
                start = content.ids.index(self.tokens.image_id)
            positions[:, i, :size] = mrope_positions(size, start, content.grid)
            count = content.grid[0] * content.grid[1]
            visual.append(np.arange(content.visual_start, content.visual_start + count))
        rows = np.concatenate(visual)
        return Chunk(
            torch.from_numpy(ids),
            torch.from_numpy(mask),
            torch.from_numpy(positions),
            torch.from_numpy(rows) if len(rows) else None,
            _column([content.task for content in contents]) if self.separate else None,
            lengths,
        )

    def _task_batch(
        self, task: str, rows: list[Row], index: dict[tuple[str, Side], int]
    ) -> TaskBatch:
        like = self._like[task]
        negatives = [(i, side) for i, row in enumerate(rows) for side in row.negatives]
        scores = [row.score for row in rows]
        classes = [self.book.class_of(task, row.labels) for row in rows]
        labels = [name for name in classes if name is not None]
        return TaskBatch(
            query=_column([index[like, row.query] for row in rows]),
            document=_column([index[like, row.document] for row in rows]),
            query_key=_column([row.query.key for row in rows]),
            document_key=_column([row.document.key for row in rows]),
            row=_column([row.row for row in rows]),
            score=None if None in scores else torch.tensor(scores, dtype=torch.float32),
            negative=_column([index[like, side] for _, side in negatives]) if negatives else None,
            negative_key=_column([side.key for _, side in negatives]) if negatives else None,
            negative_row=_column([i for i, _ in negatives]) if negatives else None,
            label=_column(labels) if labels else None,
            teacher_query=_vectors([row.teacher_query for row in rows]),
            teacher_document=_vectors([row.teacher_document for row in rows]),
        )


@lru_cache(maxsize=4096)
def mrope_positions(length: int, start: int, grid: tuple[int, int]) -> NDArray[np.int64]:
    """M-RoPE positions of one content: (3, length), along time, height and width.

    Text counts on in all three. A picture of `grid` visual tokens at `start` keeps the time it
    began at and counts rows and columns from there; the text after it goes on behind its longer
    side.
    """
    down, across = grid
    before = np.tile(np.arange(start), (3, 1))
    rows, columns = np.divmod(np.arange(down * across), max(across, 1))
    picture = start + np.stack([np.zeros_like(rows), rows, columns])
    rest = length - start - down * across
    after = np.tile(np.arange(rest) + start + max(down, across), (3, 1))
    return np.concatenate([before, picture, after], axis=1)


def _vectors(values: Sequence[Sequence[float] | None]) -> Tensor | None:
    """(B, K), or None for a task without vectors."""
    known = [vector for vector in values if vector is not None]
    return torch.tensor(known, dtype=torch.float32) if known else None


def _column(values: list[int]) -> Tensor:
    return torch.tensor(values, dtype=torch.int64)
