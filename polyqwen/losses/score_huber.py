"""Regression of the given similarity scores that forgives outliers."""

from torch.nn import functional as F

from polyqwen.losses import checks
from polyqwen.losses.similarity import mean, unit_similarity
from polyqwen.losses.types import LossOutput, NonNegativeLoss, Pairs


class ScoreHuberLoss(NonNegativeLoss):
    """Huber distance between the given score and the predicted similarity.

        L = mean_i h(s_i − ŝ_i),   ŝ = (cos(q, d) + 1) / 2
        h(r) = r²/2 where |r| <= δ, else δ (|r| − δ/2)

    In [0, δ(1 − δ/2)] for δ <= 1. A wrongly scored pair pulls with a force of δ at most, where the
    squared distance of `ScoreMSELoss` pulls the harder the more wrong it is. From δ = 1 on it is
    half of that. Reference: Huber 1964, "Robust estimation of a location parameter", Annals of
    Mathematical Statistics 35.

    Args:
        delta: δ > 0, in units of ŝ.
    """

    def __init__(self, delta: float = 0.1) -> None:
        super().__init__()
        self.delta = checks.positive("delta", delta)

    def forward(self, pairs: Pairs) -> LossOutput:
        """Mean over rows; raises ValueError where the pairs have no scores."""
        predicted = unit_similarity(pairs)  # (B,)
        score = pairs.score_for(self).to(predicted.dtype)  # (B,)
        total = mean(F.huber_loss(predicted, score, reduction="none", delta=self.delta))
        return LossOutput(total, {"score_huber": total.detach()}, total.new_zeros(()))
