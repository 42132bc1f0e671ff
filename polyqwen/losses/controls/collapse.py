"""CONTROL: all embeddings to one point."""

import torch

from polyqwen.losses.similarity import at_least_float32, mean
from polyqwen.losses.types import LossOutput, NonNegativeLoss, Pairs


class CollapseLoss(NonNegativeLoss):
    """Misleads on purpose: pulls all queries and documents together.

        L = 1 − ‖z̄‖²,   z̄ = mean of all queries and documents

    In [0, 1]: the mean of 1 − cos over all combinations, 0 where all embeddings are equal. It falls
    to its bound within few steps, so whatever weighs losses by their inverse gives it everything.
    """

    def forward(self, pairs: Pairs) -> LossOutput:
        """Over all queries and documents."""
        embedding = at_least_float32(torch.cat([pairs.query, pairs.document]))  # (2B, D)
        centre = embedding.sum(dim=0) / max(len(embedding), 1)  # (D,)
        total = mean(1 - (embedding * centre).sum(dim=1))
        return LossOutput(total, {"collapse": total.detach()}, total.new_zeros(()))
