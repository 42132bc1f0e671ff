"""The embedding space to walk through in TensorBoard: texts and pictures of all tasks together."""

from pathlib import Path

import lightning.pytorch as pl

from polyqwen.data.datamodule import CurriculumDataModule
from polyqwen.tensorboard.points import cloud_of, points_of
from polyqwen.tensorboard.projector_files import write_cloud
from polyqwen.training.callbacks.base import tensorboard_writers
from polyqwen.training.module import EmbeddingModule


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
