"""Transformer layers one by one: recomputed in the backward pass, or compiled."""

from collections.abc import Iterable
from functools import partial
from typing import Any

from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers.modeling_layers import GradientCheckpointingLayer

# one object for all: compiled layers are compiled anew for another
CHECKPOINT = partial(checkpoint, use_reentrant=False)


def recomputable(model: nn.Module) -> list[GradientCheckpointingLayer]:
    """The layers of a Hugging Face model that can be computed again."""
    return [m for m in model.modules() if isinstance(m, GradientCheckpointingLayer)]


class LayeredEncoder(nn.Module):
    """An encoder around a Hugging Face model whose layers can be computed again one by one."""

    model: Any  # the Hugging Face model

    @property
    def text_model(self) -> Any:
        """The Hugging Face model that reads tokens; `polyqwen.models.tuning` changes it."""
        return self.model

    @property
    def hidden_size(self) -> int:
        """H, width of the hidden states."""
        return int(self.text_model.config.hidden_size)

    @property
    def recomputable_layers(self) -> int:
        """See `Encoder.recomputable_layers`."""
        return len(self._layers())

    def recompute_layers(self, on: bool) -> None:
        """See `Encoder.recompute_layers`; it takes effect in training mode."""
        layers: list[Any] = [*self._layers()]  # their attributes are not declared
        if on and not layers:
            raise ValueError(
                f"large_batch=checkpoint: layers of {type(self.text_model).__name__} cannot be "
                "computed again one by one; use large_batch=cached"
            )
        for layer in layers:
            layer._gradient_checkpointing_func = CHECKPOINT
            layer.gradient_checkpointing = on

    def _layers(self) -> list[GradientCheckpointingLayer]:
        return recomputable(self.text_model)


def compile_blocks(blocks: Iterable[nn.Module], backend: str = "inductor") -> None:
    """Compiles each block in place, at its first call.

    Blocks are alike, so that the code of the first serves them all: one compilation for a training
    step and one for evaluation, however deep the model. Batch sizes and lengths are symbols
    (``dynamic=True``); lengths rounded up (``data.pad_to_multiple``) are still kinder to the
    kernels. A whole model would break into pieces at its masks, positions and pictures. Parameters
    keep their names: checkpoints of compiled and plain runs load into each other.

    Args:
        blocks: modules with tensors in and out.
        backend: of `torch.compile`.
    """
    for block in blocks:
        block.compile(dynamic=True, backend=backend)
