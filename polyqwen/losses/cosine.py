"""Pull of each query towards its positive."""

from torch import nn

from polyqwen.losses.similarity import mean, paired_cosine
from polyqwen.losses.types import LossOutput, Pairs


class CosineLoss(nn.Module):
    """Distance of matching pairs, L = mean_i (1 − cos(q_i, d_i)), in [0, 2].

    On unit vectors it is half the alignment of Wang & Isola 2020, arXiv 2005.10242. It has no
    negatives: alone it is minimised by equal embeddings for everything.
    """

    lower_bound = 0.0

    def forward(self, pairs: Pairs) -> LossOutput:
        """Mean over rows."""
        total = mean(1 - paired_cosine(pairs))
        return LossOutput(total, {"cosine": total.detach()}, total.new_zeros(()))
