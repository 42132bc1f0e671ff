"""What a strategy's ``normalize`` does to the size of its weights."""

import torch
from torch import Tensor

from polyqwen.weighting.common import check


def scaled(weights: Tensor, active: Tensor, old: Tensor, normalize: str) -> Tensor:
    """Weights of the active tasks, (T,), the others' left as they are.

    "sum_to_T" scales the active ones to sum to their number, so that the strategy does not change
    the learning rate; "none" leaves them. Weights whose sum is not positive have no such scale.
    """
    total = float(weights[active].sum())
    if normalize == "sum_to_T" and total > 0.0:
        weights = weights * int(active.sum()) / total
    return torch.where(active, weights, old)


def check_normalize(normalize: str) -> None:
    """As `check`, for the argument that many strategies share."""
    check(normalize in ("sum_to_T", "none"), "normalize", normalize, "'sum_to_T' or 'none'")
