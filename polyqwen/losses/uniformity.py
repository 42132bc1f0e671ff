"""Regulariser that spreads embeddings over the sphere; needs no labels."""

import torch
from torch import Tensor, nn

from polyqwen.losses import checks
from polyqwen.losses.similarity import cosine_matrix
from polyqwen.losses.types import LossOutput, Pairs


class UniformityLoss(nn.Module):
    """L = log mean_{i ≠ j} exp(−t ‖q_i − q_j‖²), in [−4t, 0]; 0 is a collapse to one point.

    Wang & Isola 2020, arXiv 2005.10242, t = 2. We leave out pairs of equal contents, which cannot
    be moved apart. A batch without two different contents gives zero with a graph.

    Args:
        t: > 0; the larger, the more only near neighbours repel each other.
    """

    def __init__(self, t: float = 2.0) -> None:
        super().__init__()
        self.t = checks.positive("t", t)

    @property
    def lower_bound(self) -> float:
        """−4t, of opposite points; not 0."""
        return -4.0 * self.t

    def forward(self, pairs: Pairs) -> LossOutput:
        """Over the queries of the batch."""
        different = pairs.query_key[:, None] != pairs.query_key[None, :]  # (B, B)
        squared = 2.0 - 2.0 * cosine_matrix(pairs.query, pairs.query)  # (B, B)
        total = _log_mean_exp(-self.t * squared, different)
        return LossOutput(total, {"uniformity": total.detach()}, total.new_zeros(()))


def _log_mean_exp(values: Tensor, mask: Tensor) -> Tensor:
    """log of the mean of exp over the mask; 0 with a graph over an empty one."""
    count = mask.sum()
    if not count:
        return (values * 0.0).sum()
    return values.masked_fill(~mask, -torch.inf).flatten().logsumexp(dim=0) - count.log()
