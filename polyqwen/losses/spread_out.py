"""Non-matching pairs as orthogonal as random directions."""

from polyqwen.losses.similarity import candidates, cosine_matrix, negative_mask, weighted_mean
from polyqwen.losses.types import LossOutput, NonNegativeLoss, Pairs


class SpreadOutLoss(NonNegativeLoss):
    """Global orthogonal regularisation: first two moments of non-matching cosines.

        L = M₁² + max(0, M₂ − 1/D),   M_k = mean of cos(q_i, c)^k over i and c ∈ N(i)

    Two independent uniform directions in D dimensions have M₁ = 0 and M₂ = 1/D, so L is zero for
    embeddings spread evenly and at most 2 − 1/D. N(i) holds the other rows' documents and all
    rows' hard negatives, without false negatives (see `similarity.negative_mask`); without any the
    loss is zero. A regulariser: it does not look at the matching pairs.

    Reference: Zhang et al. 2017, arXiv 1708.06320, who draw one non-matching pair per row; we take
    all of the batch.
    """

    def forward(self, pairs: Pairs) -> LossOutput:
        """Over all non-matching combinations of the batch."""
        cosine = cosine_matrix(pairs.query, candidates(pairs))  # (B, B + K)
        mask = negative_mask(pairs)  # (B, B + K)
        first = weighted_mean(cosine, mask)
        second = weighted_mean(cosine.square(), mask)
        total = first.square() + (second - 1 / pairs.query.shape[1]).relu()
        return LossOutput(total, {"spread_out": total.detach()}, total.new_zeros(()))
