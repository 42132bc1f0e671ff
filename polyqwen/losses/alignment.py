"""Distance of matching pairs on the sphere."""

import torch

from polyqwen.losses.similarity import at_least_float32, mean
from polyqwen.losses.types import LossOutput, NonNegativeLoss, Pairs


class AlignmentLoss(NonNegativeLoss):
    """L = mean_i ‖q_i − d_i‖^α, in [0, 2^α].

    With α = 2 it is 2 − 2 cos, twice `CosineLoss`. It has no negatives: alone it is minimised by
    equal embeddings for everything; its counterpart is `UniformityLoss`. Scores are not read, so
    every pair is pulled together. Reference: Wang & Isola 2020, arXiv 2005.10242.

    Args:
        alpha: α >= 1; below that the gradient is infinite at equal embeddings.
    """

    def __init__(self, alpha: float = 2.0) -> None:
        super().__init__()
        if not 1.0 <= alpha < float("inf"):
            raise ValueError(f"alpha is {alpha!r}: give a finite number >= 1")
        self.alpha = float(alpha)

    def forward(self, pairs: Pairs) -> LossOutput:
        """Mean over rows."""
        offset = at_least_float32(pairs.query) - at_least_float32(pairs.document)  # (B, D)
        total = mean(torch.linalg.vector_norm(offset, dim=1).pow(self.alpha))
        return LossOutput(total, {"alignment": total.detach()}, total.new_zeros(()))
