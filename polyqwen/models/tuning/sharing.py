"""What tasks share of the model: all of it, all but a projection each, or all but adapters."""

from collections.abc import Sequence
from typing import ClassVar

from torch import nn

from polyqwen.models.encoder import Encoder
from polyqwen.models.projection import PartedProjection
from polyqwen.models.tuning.task_adapters import AdaptedEncoder


class HardSharing:
    """One encoder and one projection for all tasks.

    Attributes:
        separate: whether a text must be encoded once for each of its tasks.
    """

    separate: ClassVar[bool] = False

    def apply(
        self, encoder: Encoder, projection: nn.Module, parts: int
    ) -> tuple[Encoder, nn.Module]:
        """The encoder and projection to train, for so many tasks."""
        return encoder, projection


class SoftSharing(HardSharing):
    """One encoder, and for each task its own projection tied to their mean.

    Args:
        strength: of the ties, >= 0; see `PartedProjection`.
    """

    def __init__(self, strength: float = 0.01) -> None:
        self.strength = strength

    def apply(
        self, encoder: Encoder, projection: nn.Module, parts: int
    ) -> tuple[Encoder, nn.Module]:
        """See `HardSharing.apply`."""
        if not list(projection.parameters()):
            raise ValueError(
                "model.sharing=soft needs a projection with parameters; use "
                "model/projection=residual, or model/sharing=adapters"
            )
        return encoder, PartedProjection(projection, parts, self.strength)


class AdapterSharing(HardSharing):
    """For each task low-rank adapters inside the shared encoder, and one projection.

    A text with several labels is encoded once for each of them.

    Args:
        rank: of the adapters, >= 1.
        alpha: their scale is alpha / rank, > 0.
        targets: last names of the linear layers that get them.
        freeze: train the adapters and the head alone, for pretrained encoders.
    """

    separate: ClassVar[bool] = True

    def __init__(
        self,
        rank: int = 8,
        alpha: float = 16.0,
        targets: Sequence[str] = ("query", "value", "q_proj", "v_proj"),
        freeze: bool = False,
    ) -> None:
        self.rank, self.alpha = rank, alpha
        self.targets, self.freeze = tuple(targets), freeze

    def apply(
        self, encoder: Encoder, projection: nn.Module, parts: int
    ) -> tuple[Encoder, nn.Module]:
        """See `HardSharing.apply`."""
        adapted = AdaptedEncoder(
            encoder,
            parts,
            targets=self.targets,
            rank=self.rank,
            alpha=self.alpha,
            freeze=self.freeze,
        )
        return adapted, projection
