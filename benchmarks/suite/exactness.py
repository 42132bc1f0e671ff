"""Whether two ways of computing a gradient agree."""

from collections.abc import Callable

import torch
from torch import Tensor, nn


def gradient(
    module: nn.Module, backward: Callable[[], object], dtype: torch.dtype = torch.float64
) -> Tensor:
    """All trained parameters' gradients in one vector, (P,) of ``dtype``; none is left behind.

    Raises:
        ValueError: a parameter got no gradient.
    """
    module.zero_grad(set_to_none=True)
    backward()
    named = [(name, p) for name, p in module.named_parameters() if p.requires_grad]
    silent = [name for name, p in named if p.grad is None]
    if silent:
        raise ValueError(f"{len(silent)} parameters got no gradient, first {silent[0]}")
    found = torch.cat([p.grad.flatten().to(dtype) for _, p in named if p.grad is not None])
    module.zero_grad(set_to_none=True)
    return found


def relative_error(found: Tensor, reference: Tensor) -> float:
    """|g − r| / |r|."""
    return float((found - reference).norm() / reference.norm())
