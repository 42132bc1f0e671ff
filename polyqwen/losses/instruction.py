"""Loss of instruction following, text to text."""

from polyqwen.losses.cosine import CosineLoss
from polyqwen.losses.info_nce import InfoNCEBasedLoss
from polyqwen.losses.types import LossOutput, Pairs


class InstructionLoss(InfoNCEBasedLoss):
    """L = InfoNCE(τ) + mean_i (1 − cos(q_i, d_i)).

    For the fifth task of the dynamic task weighting report, which does not say how its loss is
    made. The two terms and their equal weights are ours.

    Args:
        temperature: τ > 0 of InfoNCE.
        symmetric: InfoNCE in both directions.

    Attributes:
        temperature: may be set from outside at any time.
    """

    def __init__(self, temperature: float = 0.07, symmetric: bool = False) -> None:
        super().__init__(temperature, symmetric)
        self.cosine = CosineLoss()

    def forward(self, pairs: Pairs) -> LossOutput:
        """Both terms over the same rows."""
        contrastive: LossOutput = self.info_nce(pairs)
        return contrastive.plus(self.cosine(pairs))
