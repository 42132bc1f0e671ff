"""Means that stay defined, with a graph, when nothing counts."""

from collections.abc import Callable

import torch
from torch import Tensor

from polyqwen.losses.types import Pairs


def weighted_mean(values: Tensor, weight: Tensor) -> Tensor:
    """Σ w·v / Σ w; zero with a graph, and with zero gradients, where all weights are zero.

    Args:
        values: any shape.
        weight: same shape, >= 0; booleans count as 0 and 1.
    """
    weight = weight.to(values.dtype)
    return (values * weight).sum() / weight.sum().clamp_min(torch.finfo(values.dtype).tiny)


def mean(values: Tensor) -> Tensor:
    """Plain mean; zero with a graph where there are no values."""
    return values.sum() / max(values.numel(), 1)


def mean_of_sides(side: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]], pairs: Pairs) -> Tensor:
    """Mean of what ``side`` makes of queries and of documents, without those it knows nothing of.

    Args:
        side: embeddings (B, D) and their keys (B,) -> a scalar, and whether it is defined.
        pairs: of one task.
    """
    sides = [side(pairs.query, pairs.query_key), side(pairs.document, pairs.document_key)]
    value, known = (torch.stack(parts) for parts in zip(*sides, strict=True))  # (2,), (2,)
    return weighted_mean(value, known)
