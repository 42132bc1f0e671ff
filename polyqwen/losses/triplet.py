"""Margin between the positive and the hardest negative."""

import torch
from torch.nn import functional as F

from polyqwen.losses import checks
from polyqwen.losses.similarity import (
    candidates,
    cosine_matrix,
    negative_mask,
    own_negative_mask,
    weighted_mean,
)
from polyqwen.losses.types import LossOutput, NonNegativeLoss, Pairs


class TripletLoss(NonNegativeLoss):
    """Asks the hardest negative to be farther from the query than the positive, by a margin.

        L_i = max(0, d(q_i, p_i) − d(q_i, n_i) + m),   d = 1 − cos

    n_i is the closest admissible negative of row i (see `similarity.negative_mask`); rows without
    one count neither in the sum nor in the mean.

    References: Schroff et al. 2015, arXiv 1503.03832; hardest in the batch: Hermans et al. 2017,
    arXiv 1703.07737. viPolyQwen, section 3.2.3, prints d(q, n) twice, which is constant; we read
    the first as d(q, p). We deviate from the usual squared Euclidean distance, which is 2·d.

    Args:
        margin: m >= 0, in units of cosine distance.
        given_only: take n_i from the hard negatives given for row i only, instead of from all
            documents and hard negatives of the batch.
    """

    def __init__(self, margin: float = 0.2, given_only: bool = False) -> None:
        super().__init__()
        self.margin = checks.not_negative("margin", margin)
        self.given_only = given_only

    def forward(self, pairs: Pairs) -> LossOutput:
        """Mean over the rows that have a negative."""
        cosine = cosine_matrix(pairs.query, candidates(pairs))  # (B, B + K)
        mask = negative_mask(pairs)  # (B, B + K)
        if self.given_only:
            mask = mask & own_negative_mask(pairs)  # (B, B + K)
        masked = cosine.masked_fill(~mask, -torch.inf)  # (B, B + K)
        # The extra column lets the maximum over no candidates at all (B = K = 0) be defined.
        hardest = F.pad(masked, (0, 1), value=-torch.inf).amax(dim=1)  # (B,)
        # −inf, where a row has no negative, ends in the hinge's flat part: value and gradient 0.
        hinge = (hardest - cosine.diagonal() + self.margin).relu()  # (B,)
        total = weighted_mean(hinge, mask.any(dim=1))
        return LossOutput(total, {"triplet": total.detach()}, total.new_zeros(()))
