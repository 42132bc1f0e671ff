"""The project's own training step as an arm."""

from typing import Literal

from polyqwen.data.batch import Batch
from polyqwen.module import EmbeddingModule

Mode = Literal["off"]
MODES: tuple[Mode, ...] = ("off",)


class Ours:
    """`EmbeddingModule.training_step` in one of its modes.

    Args:
        module: the model.
        mode: what is kept for the backward pass and what is computed anew.
        batch: from the project's collator.
    """

    def __init__(self, module: EmbeddingModule, mode: Mode, batch: Batch) -> None:
        self.module, self.mode, self.batch = module, mode, batch

    def backward(self) -> None:
        """Adds the batch's gradient to the parameters."""
        self.module.training_step(self.batch, 0).backward()
