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


def recompute(layers: list[GradientCheckpointingLayer], on: bool) -> None:
    """Switches it on or off; it takes effect in training mode."""
    layer: Any  # its attributes are not declared
    for layer in layers:
        layer._gradient_checkpointing_func = CHECKPOINT
        layer.gradient_checkpointing = on


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
