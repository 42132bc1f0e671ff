"""CONTROL: scores turned upside down."""

from torch import nn

from polyqwen.losses.types import LossOutput, Pairs


class InvertedScoreLoss(nn.Module):
    """Misleads on purpose: a loss that reads scores, given 1 − s in their place.

    Args:
        loss: a loss that needs scores, such as `ScoreMSELoss` or `CoSENTLoss`.

    Attributes:
        temperature: of the inner loss, where it has one; may be set from outside at any time.
    """

    def __init__(self, loss: nn.Module) -> None:
        super().__init__()
        self.loss = loss

    @property
    def lower_bound(self) -> float | None:
        """That of the inner loss."""
        return getattr(self.loss, "lower_bound", None)

    @property
    def temperature(self) -> float:
        """τ of the inner loss; AttributeError where it has none."""
        return self.loss.temperature  # type: ignore[return-value]

    @temperature.setter
    def temperature(self, value: float) -> None:
        self.loss.temperature = value  # type: ignore[assignment]

    def forward(self, pairs: Pairs) -> LossOutput:
        """Components are ``inverted_<name>``; raises ValueError where the pairs have no scores."""
        score = pairs.score_for(self)  # (B,)
        output = self.loss(pairs._replace(score=1 - score))
        parts = {f"inverted_{name}": part for name, part in output.components.items()}
        return output._replace(components=parts)
