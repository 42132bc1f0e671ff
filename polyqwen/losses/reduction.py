"""Means that stay defined, with a graph, when nothing counts."""

import torch
from torch import Tensor


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
