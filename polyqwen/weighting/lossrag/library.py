"""All that is known of the losses on offer and of the situation, kept up to date together."""

import torch
from torch import Tensor, nn

from polyqwen.weighting.lossrag.activity import Activity
from polyqwen.weighting.lossrag.context import Context
from polyqwen.weighting.lossrag.descriptors import Descriptors
from polyqwen.weighting.lossrag.measurements import Measurement, RealisedCredit
from polyqwen.weighting.statistics import Statistics


class Library(nn.Module):
    """The candidate losses, described; nothing here chooses.

    Args:
        descriptors: φ of each.
        situation: c.
        activity: who takes part.
        credit: what shares did in hindsight.
        described: whether φ is handed out; zeros otherwise.
    """

    def __init__(
        self,
        descriptors: Descriptors,
        situation: Context,
        activity: Activity,
        credit: RealisedCredit,
        described: bool = True,
    ) -> None:
        super().__init__()
        self.descriptors, self.situation = descriptors, situation
        self.activity, self.credit, self.described = activity, credit, described

    def observe(self, seen: Measurement, statistics: Statistics, learn: bool) -> dict[str, str]:
        """Takes one update's look; returns loss -> what was switched, and why.

        Args:
            seen: what was measured.
            statistics: for rows and the batch's features.
            learn: whether z-scores' means and variances follow.
        """
        self.credit.observe(seen.share, seen.trusted)
        if seen.looked.any():
            realised = self.credit.correlation
            self.descriptors.observe(seen, self.activity.anchor, realised, learn)
            self.situation.observe(seen, statistics.rows, statistics.features, learn)
        return self.activity.judge(seen.agreement)

    def features(self) -> Tensor:
        """φ, (M, F)."""
        features = self.descriptors.features(self.credit.correlation)
        return features if self.described else torch.zeros_like(features)
