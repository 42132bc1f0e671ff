"""The project's own training step as an arm."""

from typing import Literal

from polyqwen.data.batch import Batch
from polyqwen.models.memory.large_batch import LargeBatch
from polyqwen.training.module import EmbeddingModule

Mode = Literal["off", "checkpoint", "cached"]
MODES: tuple[Mode, ...] = ("off", "checkpoint", "cached")


class Ours:
    """`EmbeddingModule.training_step` in one of its large-batch modes.

    Args:
        module: the model.
        mode: what is kept for the backward pass and what is computed anew.
        batch: from the project's collator.
        visual_patches: patches that the vision tower takes at a time outside of ``off``.
    """

    def __init__(
        self, module: EmbeddingModule, mode: Mode, batch: Batch, visual_patches: int = 65536
    ) -> None:
        self.module, self.batch = module, batch
        self.large_batch = LargeBatch(mode, visual_patches=visual_patches)

    def backward(self) -> None:
        """Adds the batch's gradient to the parameters."""
        self.module.large_batch = self.large_batch
        self.module.training_step(self.batch, 0).backward()
