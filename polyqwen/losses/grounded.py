"""Loss of the picture tasks (OCR, visual question answering)."""

from polyqwen.losses import checks
from polyqwen.losses.info_nce import InfoNCEBasedLoss
from polyqwen.losses.triplet import TripletLoss
from polyqwen.losses.types import LossOutput, Pairs


class GroundedLoss(InfoNCEBasedLoss):
    """L = InfoNCE(τ) + λ_triplet · triplet(m); viPolyQwen, section 3.2.3.

    Args:
        temperature: τ > 0 of InfoNCE.
        triplet_weight: λ_triplet >= 0; the paper leaves it open.
        margin: m >= 0 of the triplet term.
        given_only: the triplet takes only the hard negatives given for the row.
        symmetric: InfoNCE in both directions.

    Attributes:
        temperature, triplet_weight: may be set from outside at any time.
    """

    def __init__(
        self,
        temperature: float = 0.07,
        triplet_weight: float = 1.0,
        margin: float = 0.2,
        given_only: bool = False,
        symmetric: bool = False,
    ) -> None:
        super().__init__(temperature, symmetric)
        self.triplet_weight = checks.not_negative("triplet_weight", triplet_weight)
        self.triplet = TripletLoss(margin, given_only)

    def forward(self, pairs: Pairs) -> LossOutput:
        """Both terms over the same rows."""
        contrastive: LossOutput = self.info_nce(pairs)
        return contrastive.plus(self.triplet(pairs), self.triplet_weight)
