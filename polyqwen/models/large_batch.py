"""Large batches on little memory: what of a training step is kept, and what is computed again."""

import logging
import os
from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn

from polyqwen.models.cached_pass import cached_pass
from polyqwen.models.inputs import Chunk, Encoder, Images
from polyqwen.models.visual_store import VisualStore

log = logging.getLogger(__name__)
MODES = ("auto", "off", "checkpoint", "cached")
SAFETY = 0.8  # of free memory, for what the estimate does not know
STATE = 3  # gradient and Adam's two moments, of a parameter's size each

Encode = Callable[[Chunk, Tensor | None], Tensor]


class LargeBatch:
    """Pooled features of all contents of a batch, with exact gradients, within a memory budget.

    All in-batch negatives of a contrastive loss must be embedded before its gradient is known, so a
    plain step keeps every activation of the batch. There are three ways, equal in their gradients:

    ======== ============================= ======================== ====================
    mode     kept for the backward pass    computed                 memory grows with
    ======== ============================= ======================== ====================
    off      everything                    3 language-model passes  tokens × layers × ~20 H
    checkpoint  inputs of every layer      4                        tokens × layers × H
    cached   nothing but pooled features   4                        rows × H
    ======== ============================= ======================== ====================

    (a backward pass counts as two). ``cached`` is GradCache (Gao et al. 2021, arXiv 2101.06983) cut
    at the pooled features; unlike it, a frozen vision tower runs once per step, because its output
    is kept for the second pass (on the host above ``visual_gb``). ``auto`` takes the first of the
    three that fits, for each step and process by itself: they may differ, as the gradients do not.

    Args:
        mode: one of `MODES`.
        memory_gb: for activations, > 0; None takes what is free at the first step.
        visual_gb: visual features of a step kept on the device before they go to the host, >= 0.
        visual_patches: patches that the vision tower takes at a time outside of ``off``, >= 1.

    Attributes:
        last: the mode of the last training step.
    """

    def __init__(
        self,
        mode: str = "auto",
        memory_gb: float | None = None,
        visual_gb: float = 8.0,
        visual_patches: int = 65536,
    ) -> None:
        if mode not in MODES:
            raise ValueError(f"large_batch.mode must be one of {', '.join(MODES)}, got {mode!r}")
        if memory_gb is not None and not memory_gb > 0.0:
            raise ValueError(f"large_batch.memory_gb must be > 0 or null, got {memory_gb}")
        if visual_gb < 0.0 or visual_patches < 1:
            raise ValueError(
                "large_batch.visual_gb must be >= 0 and visual_patches >= 1, got "
                f"{visual_gb} and {visual_patches}"
            )
        self.mode, self.visual_gb, self.visual_patches = mode, visual_gb, visual_patches
        self.last = mode if mode != "auto" else "off"
        self._budget = None if memory_gb is None else memory_gb * 2**30
        self._bytes_per_token: float | None = None

    def pooled(
        self, encoder: Encoder, pooling: nn.Module, chunks: Sequence[Chunk], images: Images | None
    ) -> Tensor:
        """(N, H), content i of all chunks put after one another in row i.

        Raises:
            ValueError: ``checkpoint`` with an encoder whose layers cannot be computed again.
        """

        def encode(chunk: Chunk, visual: Tensor | None) -> Tensor:
            hidden: Tensor = pooling(encoder(chunk, visual), chunk.mask)
            return hidden

        parts = [part for part in (encoder, pooling) if isinstance(part, nn.Module)]
        parameters = [p for part in parts for p in part.parameters()]
        training = torch.is_grad_enabled()
        known = self.mode if self.mode != "auto" else None
        if not training or known == "off":
            store = VisualStore(encoder, images, None, None)
        else:
            store = VisualStore(encoder, images, self.visual_patches, self.visual_gb)
        mode = (
            "off"
            if not training
            else known or self._choose(encode, encoder, chunks, store, parameters)
        )
        if training:
            self.last = mode
        encoder.recompute_layers(mode == "checkpoint")
        if mode == "cached":
            trained = [p for p in parameters if p.requires_grad]
            pooled = cached_pass(encode, chunks, store, trained)
        else:
            pooled = torch.cat([encode(*store.of(chunk)) for chunk in chunks])
        if images is None and store.features is not None:
            pooled = pooled + 0.0 * store.features.sum()  # the same graph with and without pictures
        return pooled

    def _choose(
        self,
        encode: Encode,
        encoder: Encoder,
        chunks: Sequence[Chunk],
        store: VisualStore,
        parameters: Sequence[Tensor],
    ) -> str:
        """The first mode that fits the budget; measured on one chunk, at the first step."""
        packed = getattr(encoder, "packs", False)
        sizes = [tokens_of(chunk, packed) for chunk in chunks]
        first = self._bytes_per_token is None
        if self._bytes_per_token is None:
            smallest = chunks[sizes.index(min(sizes))]
            encoder.recompute_layers(False)
            kept = saved_bytes(encode, *store.of(smallest), parameters)
            self._bytes_per_token = kept / min(sizes)
        if self._budget is None:
            free = free_memory(chunks[0].ids.device) - _to_come(parameters)
            self._budget = SAFETY * max(free, 0.0)
        full = self._bytes_per_token * sum(sizes)
        inputs = 4.0 * encoder.hidden_size * encoder.recomputable_layers * sum(sizes)
        layered = inputs + self._bytes_per_token * max(sizes)
        mode = "cached"
        if full <= self._budget:
            mode = "off"
        elif encoder.recomputable_layers and layered <= self._budget:
            mode = "checkpoint"
        if first:
            log.info(
                "large_batch=auto: %s for %d tokens (all kept %.2f GB, checkpointed %.2f GB, "
                "budget %.2f GB)",
                *(mode, sum(sizes)),
                *(value / 2**30 for value in (full, layered, self._budget)),
            )
        return mode


def tokens_of(chunk: Chunk, packed: bool) -> int:
    """Tokens that an encoder computes, at least 1."""
    known = packed and chunk.lengths is not None
    return max(sum(chunk.lengths or ()) if known else chunk.ids.numel(), 1)


def saved_bytes(
    encode: Encode, chunk: Chunk, visual: Tensor | None, parameters: Iterable[Tensor]
) -> float:
    """Bytes that a forward pass keeps for its backward pass, beside parameters and their views."""
    there = {parameter.untyped_storage().data_ptr() for parameter in parameters}
    kept: dict[int, tuple[Tensor, int]] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in there:
            kept[storage.data_ptr()] = tensor, storage.nbytes()
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


def free_memory(device: torch.device) -> float:
    """Bytes that can still be had on a device."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return float(free + cached)
    return float(os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))


def _to_come(parameters: Iterable[Tensor]) -> float:
    """Bytes that the first step will ask for beside activations."""
    trained = [p for p in parameters if p.requires_grad and p.grad is None]
    return float(STATE * sum(p.numel() * p.element_size() for p in trained))
