"""Gradients of many chunks without their activations: encode, forget, and encode again."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import Parameter

from polyqwen.models.encoder import Chunk
from polyqwen.models.vision.feature_store import VisualStore

Encode = Callable[[Chunk, Tensor | None], Tensor]


def cached_pass(
    encode: Encode, chunks: Sequence[Chunk], store: VisualStore, parameters: Sequence[Parameter]
) -> Tensor:
    """(N, H) pooled features of all chunks, with the gradients of a plain pass.

    The forward pass keeps nothing but its result. The backward pass encodes one chunk at a time
    again, with the same random numbers and under the same autocast, and returns the summed
    gradients of ``parameters``: every parameter gets its gradient exactly once, so that clipping,
    mixed precision and DDP's reducer work as ever. Gao et al. 2021, arXiv 2101.06983.

    Args:
        encode: (chunk, visual features) -> (B, H).
        chunks: in order.
        store: visual features; if these have a graph, they get their gradient too.
        parameters: all that ``encode`` reads and the step trains.
    """
    pooled: Tensor = _CachedPass.apply(encode, list(chunks), store, store.trained, *parameters)
    return pooled


class _CachedPass(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        encode: Encode,
        chunks: list[Chunk],
        store: VisualStore,
        visual: Tensor | None,
        *parameters: Tensor,
    ) -> Tensor:
        ctx.encode, ctx.chunks, ctx.store, ctx.parameters = encode, chunks, store, parameters
        ctx.visual = None if visual is None else visual.detach()
        device = chunks[0].ids.device.type
        ctx.autocast = torch.is_autocast_enabled(device), torch.get_autocast_dtype(device)
        ctx.random = []
        parts = []
        for chunk in chunks:
            ctx.random.append(_random_state(chunk))
            parts.append(encode(*store.of(chunk, ctx.visual)))
        return torch.cat(parts)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        (gradient,) = gradients
        visual = None if ctx.visual is None else ctx.visual.requires_grad_()
        wanted = [*ctx.parameters, *([] if visual is None else [visual])]
        sums = _Sums(len(wanted))
        enabled, dtype = ctx.autocast
        parts = gradient.split([len(chunk.ids) for chunk in ctx.chunks])
        for chunk, part, state in zip(ctx.chunks, parts, ctx.random, strict=True):
            devices = [chunk.ids.device] if chunk.ids.is_cuda else []
            with (
                torch.random.fork_rng(devices),
                torch.enable_grad(),
                torch.autocast(chunk.ids.device.type, dtype, enabled),
            ):
                _set_random_state(chunk, state)
                pooled = ctx.encode(*ctx.store.of(chunk, visual))
            found = torch.autograd.grad(pooled, wanted, part, allow_unused=True)
            sums.add(found)
        of_visual = sums.values.pop() if visual is not None else None
        return None, None, None, of_visual, *sums.values


class _Sums:
    """Running sums, in place where the tensor is ours: autograd may give one tensor to two."""

    def __init__(self, count: int) -> None:
        self.values: list[Tensor | None] = [None] * count
        self._ours = [False] * count

    def add(self, found: Sequence[Tensor | None]) -> None:
        for i, new in enumerate(found):
            old = self.values[i]
            if new is None:
                continue
            if old is None:
                self.values[i] = new
            elif self._ours[i]:
                old.add_(new)
            else:
                self.values[i], self._ours[i] = old + new, True


def _random_state(chunk: Chunk) -> tuple[Tensor, Tensor | None]:
    on_device = torch.cuda.get_rng_state(chunk.ids.device) if chunk.ids.is_cuda else None
    return torch.get_rng_state(), on_device


def _set_random_state(chunk: Chunk, state: tuple[Tensor, Tensor | None]) -> None:
    host, on_device = state
    torch.set_rng_state(host)
    if on_device is not None:
        torch.cuda.set_rng_state(on_device, chunk.ids.device)
