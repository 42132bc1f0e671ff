"""Spread of the embeddings over the sphere."""

import torch
from torch import Tensor, nn

from polyqwen.losses import checks
from polyqwen.losses.similarity import cosine_matrix, first_occurrence, mean_of_sides
from polyqwen.losses.types import LossOutput, Pairs


class UniformityLoss(nn.Module):
    """Log of the mean Gaussian potential of two different contents.

        U(X) = log mean_{i<j} exp(−t ‖x_i − x_j‖²),   L = (U(queries) + U(documents)) / 2

    In [−4t, 0], that is [−8, 0] for t = 2: 0 where all embeddings are equal, −4t for two opposite
    ones; N > 2 embeddings cannot all be opposite, and spread evenly over a high-dimensional sphere
    they come near −2t. Every distinct content (by key) counts once. A side with fewer than two
    contents is left out; without both the loss is zero. Hard negatives, chosen to be close, do not
    take part.

    The sides are kept apart, as in the reference code: a gap between the modalities must not pass
    for spread. It knows no pairs; its counterpart is `AlignmentLoss`. Reference: Wang & Isola 2020,
    arXiv 2005.10242.

    Args:
        t: > 0, sharpness of the potential.
    """

    def __init__(self, t: float = 2.0) -> None:
        super().__init__()
        self.t = checks.positive("t", t)

    @property
    def lower_bound(self) -> float:
        """−4t: squared distances on the sphere are at most 4."""
        return -4.0 * self.t

    def forward(self, pairs: Pairs) -> LossOutput:
        """Mean of the sides that have two different contents."""
        total = mean_of_sides(self._side, pairs)
        return LossOutput(total, {"uniformity": total.detach()}, total.new_zeros(()))

    def _side(self, embedding: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
        """U, 0 where it is not defined, and whether it is."""
        once = first_occurrence(key)  # (N,)
        both = (once[:, None] & once[None, :]).triu(diagonal=1)  # (N, N), every pair once
        exponent = self.t * (2 * cosine_matrix(embedding, embedding) - 2)  # (N, N)
        terms = exponent.masked_fill(~both, -torch.inf).flatten()  # (N * N,)
        number = both.sum()
        # Without a pair one term of 0 takes the sum's place: log 1 − log 1, with zero gradients.
        stand_in = terms.new_zeros(1).masked_fill(number > 0, -torch.inf)  # (1,)
        potential = torch.cat([terms, stand_in]).logsumexp(dim=0)
        return potential - number.clamp_min(1).to(terms.dtype).log(), number > 0
