"""Pull of each query towards its positive."""

from polyqwen.losses.similarity import mean, paired_cosine
from polyqwen.losses.types import LossOutput, NonNegativeLoss, Pairs


class CosineLoss(NonNegativeLoss):
    """Distance of matching pairs, L = mean_i (1 − cos(q_i, d_i)), in [0, 2].

    On unit vectors it is half the alignment of Wang & Isola 2020, arXiv 2005.10242. It has no
    negatives: alone it is minimised by equal embeddings for everything.
    """

    def forward(self, pairs: Pairs) -> LossOutput:
        """Mean over rows."""
        total = mean(1 - paired_cosine(pairs))
        return LossOutput(total, {"cosine": total.detach()}, total.new_zeros(()))
