"""Layers that keep their inputs alone, and are computed again in the backward pass."""

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
