"""Cosines between the tasks' gradients at the shared head: logged, and drawn as a heat map."""

import math
from collections.abc import Sequence
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from polyqwen.report.figure_style import INK, MUTED, figure_style
from polyqwen.report.text_layout import drawable
from polyqwen.training.callbacks.base import (
    StepCallback,
    check_least,
    log_metrics,
    tensorboard_writers,
)
from polyqwen.training.module import EmbeddingModule
from polyqwen.weighting.by_gradient.base import cosines
from polyqwen.weighting.gram import SharedHeadGram

COLOURS = "RdBu"  # red: against each other; blue: together
CELL = 0.85  # inches
NUMBERED = 12  # tasks up to which a cell has room for its number


class GradientConflicts(StepCallback):
    """Logs ``gradient/cosine/<task>/<task>``; TensorBoard gets ``gradient/conflicts``, a heat map.

    The cosine of two tasks' gradients at the shared head, before weighting: below 0 a step for one
    undoes the other's (gradient conflict: Yu et al. 2020, arXiv:2001.06782). Whatever the
    weighting, it is measured at every ``every``-th step, by a small backward pass per task from the
    losses to the projection's output; see `SharedHeadGram`. The heat map holds the means since the
    last validation, in this process.

    Args:
        every: optimizer steps between measurements, >= 1.
    """

    def __init__(self, every: int = 50) -> None:
        check_least("gradient_conflicts.every", every)
        self.every = every
        self._sums: Tensor | None = None  # (T, T) of the cosines since the last heat map
        self._counts: Tensor | None = None

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Has the gradients of the coming step collected, if one is due."""
        assert isinstance(pl_module, EmbeddingModule)
        if (pl_module.step + 1) % self.every == 0 and len(pl_module.streams) > 1:
            pl_module.weigher.watch(SharedHeadGram())

    def after_step(self, trainer: pl.Trainer, module: EmbeddingModule) -> None:
        """Logs the cosines of the step, if they were asked for."""
        products = module.weigher.watched()
        if products is None or not bool(torch.isfinite(products.tasks).all()):
            return
        norms, cosine = cosines(products.tasks)
        present = (norms > 0.0)[:, None] & (norms > 0.0)[None, :]  # (T, T)
        if self._sums is None or self._counts is None:
            self._sums, self._counts = torch.zeros_like(cosine), torch.zeros_like(cosine)
        self._sums += torch.where(present, cosine, 0.0)
        self._counts += present
        if trainer.is_global_zero:
            log_metrics(trainer, _pairs(module, cosine, present), module.step)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Draws the means since the last validation."""
        assert isinstance(pl_module, EmbeddingModule)
        sums, counts = self._sums, self._counts
        if trainer.sanity_checking or sums is None or counts is None:
            return
        self._sums = self._counts = None
        for writer in tensorboard_writers(trainer):
            mean = torch.where(counts > 0, sums / counts.clamp_min(1.0), torch.nan)
            title = f"cosine of gradients at the shared head, to step {pl_module.step}"
            image = conflict_image(list(pl_module.streams), mean.tolist(), title)
            writer.add_image("gradient/conflicts", image, pl_module.step, dataformats="HWC")


def _pairs(module: EmbeddingModule, cosine: Tensor, present: Tensor) -> dict[str, float]:
    """Every pair of tasks once; a library's losses are in the heat map only."""
    names = list(module.streams)
    own = [i for i, name in enumerate(names) if name in module.tasks]
    return {
        f"gradient/cosine/{names[i]}/{names[j]}": float(cosine[i, j])
        for place, i in enumerate(own)
        for j in own[place + 1 :]
        if present[i, j]
    }


def conflict_image(
    names: Sequence[str], cosine: Sequence[Sequence[float]], title: str, width: int = 700
) -> NDArray[np.uint8]:
    """The heat map, (height, width, 3).

    Args:
        names: T tasks or losses.
        cosine: (T, T) in [-1, 1]; NaN where two were never in one step.
        title: one line above.
        width: pixels.

    Raises:
        ValueError: the matrix is not T × T.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    values = np.asarray(cosine, dtype=np.float64)
    if values.shape != (len(names), len(names)):
        raise ValueError(f"cosine must be {len(names)} × {len(names)}, got {values.shape}")
    values = np.where(np.eye(len(names), dtype=bool), np.nan, values)  # always 1: says nothing
    with figure_style():
        side = max(4.5, CELL * len(names) + 2.2)
        figure = Figure(figsize=(side, side * 0.8), layout="constrained")
        figure.set_dpi(width / side)
        canvas = FigureCanvasAgg(figure)
        ax = figure.subplots()
        drawn = ax.imshow(values, cmap=COLOURS, vmin=-1.0, vmax=1.0)
        ax.set_facecolor("#F2F2F2")
        ax.grid(False)
        labels = [drawable(name) for name in names]
        ax.set_xticks(range(len(names)), labels, rotation=35, ha="right", color=INK)
        ax.set_yticks(range(len(names)), labels, color=INK)
        ax.tick_params(length=0)
        if len(names) <= NUMBERED:
            for (row, column), value in np.ndenumerate(values):
                text = "·" if math.isnan(value) else f"{value:+.2f}"
                colour = MUTED if math.isnan(value) else "white" if abs(value) > 0.6 else INK
                ax.text(column, row, text, ha="center", va="center", color=colour)
        figure.colorbar(drawn, ax=ax, shrink=0.8, label="against each other   ·   together")
        ax.set_title(drawable(title))
        canvas.draw()
        pixels: NDArray[np.uint8] = np.asarray(canvas.buffer_rgba())[..., :3].copy()
        return pixels
