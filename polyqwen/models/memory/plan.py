"""What a step's activations take, measured on one chunk, and what there is for them."""

import os
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from polyqwen.models.encoder import Chunk
from polyqwen.models.memory.grad_cache import Encode

SAFETY = 0.8  # of free memory, for what the estimate does not know
STATE = 3  # gradient and Adam's two moments, of a parameter's size each


class MemoryPlan(NamedTuple):
    """Bytes of activations, and the budget for them.

    Attributes:
        kept: per token, all activations.
        inputs: per token, the inputs of all layers; None where layers cannot be computed again.
        budget: for the activations of a step.
    """

    kept: float
    inputs: float | None
    budget: float

    def choose(self, sizes: Sequence[int]) -> str:
        """The first of "off", "checkpoint" and "cached" that fits; ``sizes``: tokens by chunk."""
        fits = (mode for mode in ("off", "checkpoint") if self.needed(mode, sizes) <= self.budget)
        return next(fits, "cached")

    def needed(self, mode: str, sizes: Sequence[int]) -> float:
        """Bytes of a step's activations in a mode of `LargeBatch` other than "auto".

        "checkpoint" keeps the inputs of all layers, and one chunk while it is computed again;
        "cached" that chunk alone.
        """
        if mode == "off":
            return self.kept * sum(sizes)
        inputs = float("inf") if self.inputs is None else self.inputs
        layers = inputs * sum(sizes) if mode == "checkpoint" else 0.0
        return layers + self.kept * max(sizes)

    def told(self, sizes: Sequence[int]) -> str:
        """In words, for the log."""
        full, layered = (self.needed(mode, sizes) / 2**30 for mode in ("off", "checkpoint"))
        return (
            f"{sum(sizes)} tokens (all kept {full:.2f} GB, checkpointed {layered:.2f} GB, "
            f"budget {self.budget / 2**30:.2f} GB)"
        )


def tokens_of(chunk: Chunk, packed: bool) -> int:
    """Tokens that an encoder computes, at least 1."""
    known = packed and chunk.lengths is not None
    return max(sum(chunk.lengths or ()) if known else chunk.ids.numel(), 1)


def saved_bytes(
    encode: Encode, chunk: Chunk, visual: Tensor | None, parameters: Iterable[Tensor]
) -> float:
    """Bytes that a forward pass keeps for its backward pass, beside parameters and their views."""
    # by identity, not by address: tensors of shapes alone have none (see `shapes_only`)
    there = {parameter.untyped_storage()._cdata for parameter in parameters}
    kept: dict[int, tuple[Tensor, int]] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in there:
            kept[storage._cdata] = tensor, storage.nbytes()
        return tensor

    devices = [chunk.ids.device] if chunk.ids.is_cuda else []
    with (
        torch.random.fork_rng(devices),
        torch.enable_grad(),
        torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor),
    ):
        pooled = encode(chunk, visual)  # alive until the bytes are counted
        total = float(sum(size for _, size in kept.values()))
    del pooled
    return total


def activation_budget(device: torch.device, parameters: Iterable[Tensor]) -> float:
    """Bytes for activations: most of what is free beside what the first step will ask for."""
    trained = [p for p in parameters if p.requires_grad and p.grad is None]
    to_come = STATE * sum(p.numel() * p.element_size() for p in trained)
    return SAFETY * max(free_memory(device) - to_come, 0.0)


def free_memory(device: torch.device) -> float:
    """Bytes that can still be had on a device."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return float(free + cached)
    return float(os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
