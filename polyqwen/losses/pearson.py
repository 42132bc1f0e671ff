"""Linear correlation of predicted similarities with the given scores."""

from torch import Tensor

from polyqwen.losses.similarity import mean, paired_cosine
from polyqwen.losses.types import LossOutput, NonNegativeLoss, Pairs

MIN_STD = 1e-4  # of the cosines; the gradient of r grows with 1 / std


class PearsonLoss(NonNegativeLoss):
    """L = 1 − r, Pearson's correlation of cos(q_i, d_i) with the scores s_i over the batch.

        r = Σ (c_i − c̄)(s_i − s̄) / (B · σ_c · σ_s)

    In [0, 2]: 0 where the cosines are an increasing linear function of the scores, 1 without
    correlation, 2 for a decreasing one. Level and spread of the cosines are free, unlike in score
    regression; unlike in CoSENT, the distances between scores count. It is the quantity that
    similarity benchmarks report, per batch: small batches make it noisy.

    Where no two scores differ (or there is one row) r has no meaning, and L is zero. Cosines that
    do not differ count as uncorrelated, L = 1, so that a collapse is no optimum; σ_c is taken to be
    at least 1e-4, which keeps the gradient finite there. Reference: Pearson 1895, "Note on
    regression and inheritance in the case of two parents".
    """

    def forward(self, pairs: Pairs) -> LossOutput:
        """Over all rows; raises ValueError where the pairs have no scores."""
        cosine = paired_cosine(pairs)  # (B,)
        score = pairs.score_for(self).to(cosine.dtype)  # (B,)
        cosine, score = cosine - mean(cosine), score - mean(score)  # (B,)
        correlation = mean(cosine * score) / (_std(cosine) * _std(score))
        informed = score.square().sum() > MIN_STD**2 * score.numel()  # two scores differ
        total = (1 - correlation) * informed
        return LossOutput(total, {"pearson": total.detach()}, total.new_zeros(()))


def _std(centred: Tensor) -> Tensor:
    # clamped before the root, whose slope at 0 is infinite
    return mean(centred.square()).clamp_min(MIN_STD**2).sqrt()
