"""Loss of instruction following, text to text."""

from typing import ClassVar

from torch import nn

from polyqwen.losses.cosine import CosineLoss
from polyqwen.losses.info_nce import InfoNCELoss, inner_temperature
from polyqwen.losses.types import LossOutput, Pairs


class InstructionLoss(nn.Module):
    """L = InfoNCE(τ) + mean_i (1 − cos(q_i, d_i)).

    The fifth task of the dynamic task weighting report, which names the two terms and no weights;
    we add them as they are.

    Args:
        temperature: τ > 0 of InfoNCE.
        symmetric: InfoNCE in both directions.

    Attributes:
        temperature: may be set from outside at any time.
    """

    lower_bound: ClassVar[float] = 0.0
    temperature = inner_temperature()

    def __init__(self, temperature: float = 0.07, symmetric: bool = False) -> None:
        super().__init__()
        self.info_nce = InfoNCELoss(temperature, symmetric)
        self.cosine = CosineLoss()

    def forward(self, pairs: Pairs) -> LossOutput:
        """Both terms over the same rows."""
        contrastive, cosine = self.info_nce(pairs), self.cosine(pairs)
        return LossOutput(
            total=contrastive.total + cosine.total,
            components=contrastive.components | cosine.components,
            chance=contrastive.chance,
        )
