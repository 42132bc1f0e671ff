"""The embedding space to walk through in TensorBoard: texts and pictures of all tasks together."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import lightning.pytorch as pl
import numpy as np
import torch
from numpy.typing import NDArray
from PIL.Image import Image
from torch import Tensor

from polyqwen.data.datamodule import CurriculumDataModule
from polyqwen.metrics.ranks import relevant_links, retrieval_ranks
from polyqwen.metrics.split import SplitMetrics
from polyqwen.metrics.types import PairEmbeddings, distinct
from polyqwen.report.figure_style import task_colours
from polyqwen.report.retrieval_examples import look
from polyqwen.tensorboard.projector_files import COLUMNS, Cloud, Line, thumbnail, write_cloud
from polyqwen.training.callbacks.base import tensorboard_writers
from polyqwen.training.module import EmbeddingModule


class Point(NamedTuple):
    """One content; ``rank`` of its best right document, 0 where nothing is asked for."""

    task: str
    side: str
    text: str
    picture: Image | None
    rank: int
    vector: NDArray[np.float32]


def points_of(
    data: CurriculumDataModule,
    split: str,
    evaluated: Mapping[str, PairEmbeddings],
    metrics: Mapping[str, SplitMetrics],
    limit: int,
) -> list[Point]:
    """At most ``limit`` contents, as many of each task and side, spread evenly over the split.

    Args:
        data: where texts and pictures are.
        split: its rows were embedded.
        evaluated: task -> its embedded pairs; tasks without rows are left out.
        metrics: task -> whether its rows are pairs, and which of them match.
        limit: of all points, >= 2 for each task.
    """
    sides = sum(2 if metrics[task].paired else 1 for task in evaluated)
    share = max(1, limit // max(sides, 1))
    found = []
    for task, pairs in evaluated.items():
        for side in ("query", "document") if metrics[task].paired else ("query",):
            keys = pairs.query_key if side == "query" else pairs.document_key
            rows = _spread(distinct(keys)[0].sort().values, share)
            ranks = _ranks(pairs, metrics[task]) if side == "query" else {}
            vectors = pairs.query if side == "query" else pairs.document
            for row, entry in zip(rows.tolist(), look(data, task, split, pairs, rows), strict=True):
                text, picture = entry[f"{side}_text"] or "", entry[f"{side}_picture"]
                rank = ranks.get(int(pairs.query_key[row]), 0)
                vector = vectors[row].float().numpy()
                found.append(Point(task, side, text, picture, rank, vector))
    return found


def cloud_of(points: list[Point], size: int) -> Cloud:
    """The points for the projector, with thumbnails of ``size`` pixels."""
    colours = task_colours(point.task for point in points)
    cards = [thumbnail(p.text, p.picture, colours[p.task], p.side, size) for p in points]
    lines = [_line(point) for point in points]
    return Cloud(np.stack([point.vector for point in points]), lines, cards)


def _line(point: Point) -> Line:
    kind = "picture" if point.picture is not None else "text"
    kind = "picture and text" if point.picture is not None and point.text else kind
    line = (point.text, f"{point.task} · {point.side}", point.task, point.side, kind, point.rank)
    assert len(line) == len(COLUMNS)
    return line


def _spread(rows: Tensor, count: int) -> Tensor:
    return rows[torch.linspace(0, len(rows) - 1, min(count, len(rows))).long()]


def _ranks(pairs: PairEmbeddings, metrics: SplitMetrics) -> dict[int, int]:
    """Key of each distinct query with a right document -> that document's rank."""
    if not metrics.paired:
        return {}
    ranks = retrieval_ranks(pairs, metrics.min_score)
    rows = relevant_links(pairs, metrics.min_score).query_row
    places = 1 + ranks.above[ranks.best]
    return dict(zip(pairs.query_key[rows].tolist(), places.tolist(), strict=True))


class Projector(pl.Callback):
    """Writes a cloud of points with thumbnails at the run's end, and at a few validations.

    Points are queries and documents of all tasks, as many of each. The embeddings are those of the
    metrics. Without TensorBoard, or on another rank than the first, there is nothing to do.

    Args:
        points: at most so many in a cloud, 2 … 10 000: the browser draws each of them.
        thumbnail: side of a thumbnail in pixels, 24 … 80; TensorBoard takes sheets up to 8192.
        validations: clouds of validation rows, one at each of the first so many validations, in
            [0, 10].

    Raises:
        ValueError: a value is out of its range.
    """

    def __init__(self, points: int = 800, thumbnail: int = 48, validations: int = 0) -> None:
        for name, value, low, high in (
            ("points", points, 2, 10_000),
            ("thumbnail", thumbnail, 24, 80),
            ("validations", validations, 0, 10),
        ):
            if not low <= value <= high:
                raise ValueError(f"projector.{name} must be in [{low}, {high}], got {value}")
        self.points, self.thumbnail, self.validations = points, thumbnail, validations
        self.written = 0

    def state_dict(self) -> dict[str, int]:
        """Clouds of validations so far, for the checkpoint."""
        return {"written": self.written}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Clouds of validations so far, from the checkpoint."""
        self.written = state_dict["written"]

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """One of the first few."""
        if self.written < self.validations and not trainer.sanity_checking:
            self.written += 1
            self._write(trainer, pl_module, "dev")

    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The trained model, but not the untrained one."""
        if trainer.global_step:
            self._write(trainer, pl_module, "test")

    def _write(self, trainer: pl.Trainer, module: pl.LightningModule, split: str) -> None:
        assert isinstance(module, EmbeddingModule)
        data = getattr(trainer, "datamodule", None)
        writers = tensorboard_writers(trainer)
        if not writers or not isinstance(data, CurriculumDataModule):
            return
        evaluated = {task: module.evaluated[task] for task in module.tasks}
        evaluated = {task: pairs for task, pairs in evaluated.items() if len(pairs.query)}
        metrics = {task: module.metric(task) for task in evaluated}
        points = points_of(data, split, evaluated, metrics, self.points)
        if not points:
            return
        cloud = cloud_of(points, self.thumbnail)
        for writer in writers:
            write_cloud(cloud, Path(writer.get_logdir()), f"step_{module.step:06d}_{split}")
