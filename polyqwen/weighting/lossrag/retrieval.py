"""From scores to shares: who is taken, and how much."""

import torch
from torch import Tensor


def retrieve(scores: Tensor, anchor: int | None, top_k: int | None, floor: float) -> Tensor:
    """Shares of the losses on offer: the best ``top_k`` and the anchor, softmax, floor.

    ``p = (1 − ε) softmax(s on A) + ε / |A|`` with A the losses taken; 0 elsewhere.

    Args:
        scores: (M,).
        anchor: place of the loss that is always taken; it stands for the last of the best if it is
            not among them. None if it is not on offer.
        top_k: losses taken, >= 1; None takes all.
        floor: ε, in [0, 1).

    Returns:
        (M,), sums to 1.
    """
    taken = torch.ones_like(scores, dtype=torch.bool)
    if top_k is not None and top_k < len(scores):
        ranked = scores.detach().clone()
        if anchor is not None:
            ranked[anchor] = torch.inf
        taken = torch.zeros_like(taken).index_fill_(0, ranked.topk(top_k).indices, True)
    p = torch.where(taken, scores, -torch.inf).softmax(0)
    return torch.where(taken, (1.0 - floor) * p + floor / int(taken.sum()), 0.0)
