"""Large batches on little memory: what of a training step is kept, and what is computed again."""

import logging
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from polyqwen.models.encoder import Chunk, Encoder, Images
from polyqwen.models.memory.grad_cache import Encode, cached_pass
from polyqwen.models.memory.plan import MemoryPlan, activation_budget, saved_bytes, tokens_of
from polyqwen.models.vision.feature_store import VisualStore

log = logging.getLogger(__name__)
MODES = ("auto", "off", "checkpoint", "cached")


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
        self.memory_gb = memory_gb
        self._plan: MemoryPlan | None = None
        self._layered: bool | None = None  # whether the encoder's layers are recomputed; unknown

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

        training = torch.is_grad_enabled()
        whole = not training or self.mode == "off"
        limits = (None, None) if whole else (self.visual_patches, self.visual_gb)
        store = VisualStore(encoder, images, *limits)
        mode = "off" if whole else self.mode
        if mode == "auto":
            mode = self._choose(encode, encoder, pooling, chunks, store)
        if training:
            self.last = mode
            if self._layered != (mode == "checkpoint"):  # switching walks through all layers
                self._layered = mode == "checkpoint"
                encoder.recompute_layers(self._layered)
        if mode == "cached":
            trained = [p for p in _parameters(encoder, pooling) if p.requires_grad]
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
        pooling: nn.Module,
        chunks: Sequence[Chunk],
        store: VisualStore,
    ) -> str:
        """The first mode that fits the plan, which is made at the first step."""
        packed = getattr(encoder, "packs", False)
        sizes = [tokens_of(chunk, packed) for chunk in chunks]
        if self._plan is not None:
            return self._plan.choose(sizes)
        parameters = _parameters(encoder, pooling)
        smallest = chunks[sizes.index(min(sizes))]
        encoder.recompute_layers(False)
        self._layered = False
        kept = saved_bytes(encode, *store.of(smallest), parameters) / min(sizes)
        layers = encoder.recomputable_layers
        inputs = 4.0 * encoder.hidden_size * layers if layers else None
        budget = self.memory_gb and self.memory_gb * 2**30
        if budget is None:
            budget = activation_budget(chunks[0].ids.device, parameters)
        self._plan = MemoryPlan(kept, inputs, budget)
        mode = self._plan.choose(sizes)
        log.info("large_batch=auto: %s for %s", mode, self._plan.told(sizes))
        return mode


def _parameters(encoder: Encoder, pooling: nn.Module) -> list[nn.Parameter]:
    parts = [part for part in (encoder, pooling) if isinstance(part, nn.Module)]
    return [parameter for part in parts for parameter in part.parameters()]
