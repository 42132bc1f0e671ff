"""Regression of the given similarity scores."""

from polyqwen.losses.similarity import mean, unit_similarity
from polyqwen.losses.types import LossOutput, NonNegativeLoss, Pairs


class ScoreMSELoss(NonNegativeLoss):
    """Squared distance between the given score and the predicted similarity.

        L = mean_i (s_i − ŝ_i)²,   ŝ = (cos(q, d) + 1) / 2

    Reference: viPolyQwen, section 3.2.2; the cosine regression of Reimers & Gurevych 2019,
    arXiv 1908.10084. As in the former, the cosine is moved to [0, 1] first, so a score of 0 asks
    for opposite embeddings and 0.5 for orthogonal ones.
    """

    def forward(self, pairs: Pairs) -> LossOutput:
        """Mean over rows; raises ValueError where the pairs have no scores."""
        predicted = unit_similarity(pairs)  # (B,)
        score = pairs.score_for(self).to(predicted.dtype)  # (B,)
        total = mean((score - predicted).square())
        return LossOutput(total, {"score_mse": total.detach()}, total.new_zeros(()))
