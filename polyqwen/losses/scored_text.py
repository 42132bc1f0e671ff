"""Loss of text pairs with similarity scores."""

from typing import ClassVar

from torch import Tensor

from polyqwen.losses import checks
from polyqwen.losses.info_nce import InfoNCEBasedLoss
from polyqwen.losses.rank_hinge import PairwiseRankLoss
from polyqwen.losses.score_mse import ScoreMSELoss
from polyqwen.losses.types import LossOutput, Pairs

SCORE_GATES = ("none", "threshold", "weight")


class ScoredTextLoss(InfoNCEBasedLoss):
    """L = InfoNCE(τ) + λ_score · MSE + λ_rank · rank; viPolyQwen, section 3.2.2.

    The paper takes every scored pair as a positive inside InfoNCE, a pair scored 0.1 too, which
    its other two terms then push apart. `score_gate` lets the scores decide which pairs are
    anchors; gated pairs keep serving the other rows as negatives.

    Args:
        temperature: τ > 0 of InfoNCE.
        score_weight: λ_score >= 0.
        rank_weight: λ_rank >= 0.
        rank_margin: >= 0, in units of (cos + 1) / 2.
        score_gate: "none": all pairs are anchors (the paper); "threshold": those with
            s >= `score_threshold`; "weight": all, weighted by s.
        score_threshold: in [0, 1], read by "threshold" only.
        symmetric: InfoNCE in both directions.

    Attributes:
        temperature, score_weight, rank_weight: may be set from outside at any time.
    """

    warmed: ClassVar[tuple[str, ...]] = ("temperature", "score_weight", "rank_weight")

    def __init__(
        self,
        temperature: float = 0.07,
        score_weight: float = 1.0,
        rank_weight: float = 1.0,
        rank_margin: float = 0.05,
        score_gate: str = "none",
        score_threshold: float = 0.5,
        symmetric: bool = False,
    ) -> None:
        super().__init__(temperature, symmetric)
        if score_gate not in SCORE_GATES:
            raise ValueError(f"score_gate is {score_gate!r}: choose one of {SCORE_GATES}")
        if not 0.0 <= score_threshold <= 1.0:
            raise ValueError(f"score_threshold is {score_threshold!r}: give a number in [0, 1]")
        self.score_weight = checks.not_negative("score_weight", score_weight)
        self.rank_weight = checks.not_negative("rank_weight", rank_weight)
        self.score_gate = score_gate
        self.score_threshold = float(score_threshold)
        self.score_mse = ScoreMSELoss()
        self.rank = PairwiseRankLoss(checks.not_negative("rank_margin", rank_margin))

    def forward(self, pairs: Pairs) -> LossOutput:
        """All terms over the same rows; raises ValueError where the pairs have no scores."""
        score = pairs.score_for(self)  # (B,)
        contrastive: LossOutput = self.info_nce(pairs, self._row_weight(score))
        scored = contrastive.plus(self.score_mse(pairs), self.score_weight)
        return scored.plus(self.rank(pairs), self.rank_weight)

    def _row_weight(self, score: Tensor) -> Tensor | None:
        if self.score_gate == "threshold":
            return (score >= self.score_threshold).to(score.dtype)  # (B,)
        if self.score_gate == "weight":
            return score  # (B,)
        return None
