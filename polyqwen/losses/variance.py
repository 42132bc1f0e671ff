"""Keeps every dimension of the embeddings in use."""

from torch import Tensor

from polyqwen.losses import checks
from polyqwen.losses.similarity import at_least_float32, first_occurrence, mean_of_sides
from polyqwen.losses.types import LossOutput, NonNegativeLoss, Pairs

EPSILON = 1e-4  # under the root, as in the reference: the slope stays finite at zero variance


class VarianceLoss(NonNegativeLoss):
    """Hinge on the standard deviation of each dimension over the batch.

        V(Z) = 1/D Σ_j max(0, γ − √(Var(√D · z_j) + ε)),   L = (V(queries) + V(documents)) / 2

    In [0, γ]. Every distinct content (by key) counts once; a side with fewer than two is left out,
    without both the loss is zero. Unlike uniformity it also sees a few dead dimensions among many.
    Needs neither pairs nor labels.

    Reference: the variance term of VICReg, Bardes et al. 2022, arXiv 2105.04906. Its embeddings
    have free length; ours are unit vectors, so we multiply by √D, which gives embeddings spread
    evenly over the sphere a deviation of 1 in every dimension.

    Args:
        gamma: γ > 0, the wanted deviation; 1 is reached exactly by an even spread.
    """

    def __init__(self, gamma: float = 1.0) -> None:
        super().__init__()
        self.gamma = checks.positive("gamma", gamma)

    def forward(self, pairs: Pairs) -> LossOutput:
        """Mean of the sides that have two different contents."""
        total = mean_of_sides(self._side, pairs)
        return LossOutput(total, {"variance": total.detach()}, total.new_zeros(()))

    def _side(self, embedding: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
        """V, and whether two contents differ."""
        scaled = at_least_float32(embedding) * embedding.shape[1] ** 0.5  # (N, D)
        weight = first_occurrence(key).to(scaled.dtype)[:, None]  # (N, 1)
        number = weight.sum()
        centred = scaled - (scaled * weight).sum(dim=0) / number.clamp_min(1)  # (N, D)
        variance = (centred.square() * weight).sum(dim=0) / (number - 1).clamp_min(1)  # (D,)
        return (self.gamma - (variance + EPSILON).sqrt()).relu().mean(), number > 1
