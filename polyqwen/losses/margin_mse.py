"""Distillation of differences between the similarities of two pairs."""

import torch

from polyqwen.losses.similarity import unit_similarity, weighted_mean
from polyqwen.losses.types import LossOutput, NonNegativeLoss, Pairs


class MarginMSELoss(NonNegativeLoss):
    """Squared error of margins: how much more similar one pair is than another.

        L = mean_{i ≠ j} ((s_i − s_j) − (ŝ_i − ŝ_j))²,   ŝ = (cos(q, d) + 1) / 2

    In [0, 4]. Over the whole batch it is twice the sample variance of s − ŝ: score regression that
    leaves the common level free. One row, or no two rows of one query with ``same_query``, give
    zero.

    The teacher is the pair's `score`: gold, or a stronger model's similarity stored in that column.
    Hard negatives have no score, so the margins are between scored rows: all of the batch, or with
    ``same_query`` those of one query, which is the reference's (query, positive, negative) where
    the negative is a scored row of its own. Reference: Hofstätter et al. 2020, arXiv 2010.02666.

    Args:
        same_query: compare only rows with the same query.
    """

    def __init__(self, same_query: bool = False) -> None:
        super().__init__()
        self.same_query = same_query

    def forward(self, pairs: Pairs) -> LossOutput:
        """Mean over pairs of rows; raises ValueError where the pairs have no scores."""
        predicted = unit_similarity(pairs)  # (B,)
        score = pairs.score_for(self).to(predicted.dtype)  # (B,)
        residual = score - predicted  # (B,)
        counts = ~torch.eye(len(residual), dtype=torch.bool, device=residual.device)  # (B, B)
        if self.same_query:
            counts &= pairs.query_key[:, None] == pairs.query_key[None, :]
        total = weighted_mean((residual[:, None] - residual[None, :]).square(), counts)
        return LossOutput(total, {"margin_mse": total.detach()}, total.new_zeros(()))
