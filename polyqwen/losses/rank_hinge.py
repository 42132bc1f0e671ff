"""Pairwise hinge that orders predicted similarities as the scores do."""

from polyqwen.losses import checks
from polyqwen.losses.similarity import unit_similarity, weighted_mean
from polyqwen.losses.types import LossOutput, NonNegativeLoss, Pairs


class PairwiseRankLoss(NonNegativeLoss):
    """Asks every higher scored pair to be more similar, by a margin.

        L = 1/|P| Σ_{(i,j) ∈ P} max(0, m − (ŝ_i − ŝ_j)),   P = {(i, j) | s_i > s_j}

    with ŝ = (cos(q, d) + 1) / 2. Only the order of the scores matters. Without two different
    scores the loss is zero. Reference: viPolyQwen, section 3.2.2; after RankSVM (Herbrich et al.
    2000; Joachims 2002).

    Args:
        margin: m >= 0, in units of ŝ (half a cosine).
    """

    def __init__(self, margin: float = 0.05) -> None:
        super().__init__()
        self.margin = checks.not_negative("margin", margin)

    def forward(self, pairs: Pairs) -> LossOutput:
        """Mean over ordered pairs of rows; raises ValueError where the pairs have no scores."""
        score = pairs.score_for(self)  # (B,)
        predicted = unit_similarity(pairs)  # (B,)
        ordered = score[:, None] > score[None, :]  # (B, B)
        lead = predicted[:, None] - predicted[None, :]  # (B, B)
        total = weighted_mean((self.margin - lead).relu(), ordered)
        return LossOutput(total, {"rank": total.detach()}, total.new_zeros(()))
