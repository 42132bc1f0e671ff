"""How far matching pairs stand apart, as TensorBoard histograms over the run."""

import lightning.pytorch as pl
import numpy as np

from polyqwen.metrics.similarity import similarity_samples
from polyqwen.training.callbacks.base import tensorboard_writers
from polyqwen.training.module import EmbeddingModule


class SimilarityHistograms(pl.Callback):
    """At each validation, ``similarity/<task>/matching`` and ``…/non_matching`` of all cosines.

    Those that are not finite, of a model that diverged, are left out. Takes the embeddings that the
    metrics were computed from. Without TensorBoard, or on another rank than the first, there is
    nothing to do.

    Args:
        limit: cosines of either kind and task, drawn at random where there are more, >= 1.
    """

    def __init__(self, limit: int = 20_000) -> None:
        if limit < 1:
            raise ValueError(f"histograms.limit must be at least 1, got {limit}")
        self.limit = limit

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Writes both histograms of every task with pairs."""
        assert isinstance(pl_module, EmbeddingModule)
        writers = tensorboard_writers(trainer)
        if not writers or trainer.sanity_checking:
            return
        for task in pl_module.tasks:
            if not pl_module.metric(task).paired:
                continue
            least = pl_module.metric(task).min_score
            samples = similarity_samples(pl_module.evaluated[task], least, self.limit)
            for kind, cosines in zip(("matching", "non_matching"), samples, strict=True):
                finite = cosines[np.isfinite(cosines)]
                if not len(finite):
                    continue
                for writer in writers:
                    writer.add_histogram(f"similarity/{task}/{kind}", finite, pl_module.step)
