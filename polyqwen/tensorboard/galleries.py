"""The queries that the model finds hardest, to be looked at while it trains."""

from pathlib import Path

import lightning.pytorch as pl
import numpy as np

from polyqwen.data.datamodule import CurriculumDataModule
from polyqwen.metrics.choice import hardest_queries
from polyqwen.report.gallery import (
    GalleryRow,
    gallery_markdown,
    has_pictures,
    write_galleries,
)
from polyqwen.report.gallery_image import gallery_image
from polyqwen.report.retrieval_examples import gallery_rows
from polyqwen.training.callbacks.base import tensorboard_writers
from polyqwen.training.module import EmbeddingModule


class Galleries(pl.Callback):
    """Writes ``gallery/<task>`` at each validation and ``gallery/<task>/test`` at the run's end.

    Tasks with pictures become one image, others a table of text. The embeddings are those of the
    metrics. On another rank than the first there is nothing to do, nor, but for the file, without
    TensorBoard.

    Args:
        rows: hardest queries shown per task, >= 1.
        validation: also at each validation (less than a second per task).
        file: where those of the run's end are kept for its report; None: nowhere.
    """

    def __init__(self, rows: int = 4, validation: bool = True, file: str | None = None) -> None:
        if rows < 1:
            raise ValueError(f"galleries.rows must be at least 1, got {rows}")
        self.rows, self.validation = rows, validation
        self.file = None if file is None else Path(file)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The hardest queries of the validation rows."""
        if self.validation and not trainer.sanity_checking:
            self._write(trainer, pl_module, "dev")

    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The hardest queries of the test split, but not those of an untrained model."""
        if not trainer.global_step:
            return
        shown = self._write(trainer, pl_module, "test", always=self.file is not None)
        if self.file is not None and shown and trainer.is_global_zero:
            write_galleries({task: {"hardest": rows} for task, rows in shown.items()}, self.file)

    def _write(
        self, trainer: pl.Trainer, module: pl.LightningModule, split: str, always: bool = False
    ) -> dict[str, list[GalleryRow]]:
        """Rows by task; collected without TensorBoard too if ``always``."""
        assert isinstance(module, EmbeddingModule)
        data = getattr(trainer, "datamodule", None)
        writers = tensorboard_writers(trainer)
        wanted = bool(writers) or (always and trainer.is_global_zero)
        shown: dict[str, list[GalleryRow]] = {}
        if not wanted or not isinstance(data, CurriculumDataModule):
            return shown
        for task in module.tasks:
            if not module.metric(task).paired:
                continue  # a text alone finds nothing
            pairs, least = module.evaluated[task], module.metric(task).min_score
            queries = hardest_queries(pairs, least, self.rows)
            if not len(queries):
                continue
            rows = shown[task] = gallery_rows(data, task, split, pairs, queries, least)
            tag = f"gallery/{task}" + ("/test" if split == "test" else "")
            title = f"{task}, {split}: hardest queries at step {module.step}"
            for writer in writers:
                if has_pictures(rows):
                    image = np.asarray(gallery_image(rows, title))
                    writer.add_image(tag, image, module.step, dataformats="HWC")
                else:
                    text = f"**{title}**\n\n{gallery_markdown(rows)}"
                    writer.add_text(tag, text, module.step)
        return shown
