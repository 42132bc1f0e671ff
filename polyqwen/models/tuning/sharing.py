"""What tasks share of the model: all of it, all but a projection each, or all but adapters."""

import math
from collections.abc import Sequence
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn

from polyqwen.models.encoder import Chunk, Encoder, Images
from polyqwen.models.projection import PartedProjection


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


class LowRankLinear(nn.Module):
    """y = W x + b + (α/r) · U_p D_p x, with D_p (r, in) and U_p (out, r) of the row's part p.

    U starts at zero, so that all parts start as the plain layer. Hu et al. 2021, arXiv 2106.09685;
    one pair per task on a shared model: Pilault et al. 2021, arXiv 2009.09139, in spirit.

    Args:
        linear: the layer, shared by all parts.
        parts: number of adapters, >= 1.
        rank: r >= 1.
        alpha: α > 0.

    Attributes:
        part: (B,) int64, each row's part; set before a call.
    """

    def __init__(self, linear: nn.Linear, parts: int, rank: int, alpha: float) -> None:
        super().__init__()
        self.linear = linear
        self.scale = alpha / rank
        self.down = nn.Parameter(torch.empty(parts, rank, linear.in_features))
        self.up = nn.Parameter(torch.zeros(parts, linear.out_features, rank))
        nn.init.uniform_(self.down, -1.0, 1.0)
        with torch.no_grad():
            self.down.mul_(math.sqrt(3.0 / linear.in_features))
        self.part: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        """(B, L, in) -> (B, L, out)."""
        assert self.part is not None, "the parts of the rows are not set"
        down, up = self.down[self.part], self.up[self.part]  # (B, r, in), (B, out, r)
        change = torch.bmm(torch.bmm(x, down.transpose(1, 2)), up.transpose(1, 2))
        return self.linear(x) + self.scale * change


class AdaptedEncoder(nn.Module):
    """An encoder whose linear layers of some names have adapters; itself an `Encoder`.

    All parts run in one pass, row by row with their own adapter. A chunk must say which part each
    row belongs to (``Chunk.task``).

    Args:
        encoder: the encoder; its layers are replaced in place.
        parts: number of adapters per layer, >= 1.
        targets: last names of the layers, such as ``query`` (BERT) or ``q_proj`` (Qwen, Llama).
        rank: r >= 1.
        alpha: α > 0.
        freeze: train the adapters alone.

    Raises:
        ValueError: a number is out of range, the encoder packs its contents, or it has no layer of
            these names.
    """

    def __init__(
        self,
        encoder: Encoder,
        parts: int,
        *,
        targets: Sequence[str],
        rank: int,
        alpha: float,
        freeze: bool,
    ) -> None:
        super().__init__()
        if getattr(encoder, "packs", False):
            raise ValueError(
                "sharing=adapters changes rows of a padded batch, and model.encoder.attention="
                "packed has none; use attention=sdpa"
            )
        if rank < 1 or not alpha > 0.0:
            raise ValueError(f"sharing.rank must be >= 1 and alpha > 0, got {rank} and {alpha}")
        self.encoder = cast(Any, encoder)
        if freeze:
            self.encoder.requires_grad_(False)
        self.adapters: list[LowRankLinear] = []  # a plain list: they are the encoder's already
        for module in list(self.encoder.modules()):
            for name, child in list(module.named_children()):
                if name in targets and isinstance(child, nn.Linear):
                    adapter = LowRankLinear(child, parts, rank, alpha)
                    setattr(module, name, adapter)
                    self.adapters.append(adapter)
        if not self.adapters:
            raise ValueError(
                f"sharing.targets {list(targets)}: the encoder has no linear layers of these names"
            )

    @property
    def hidden_size(self) -> int:
        """H, width of the hidden states."""
        return int(self.encoder.hidden_size)

    @property
    def recomputable_layers(self) -> int:
        """None: computed again, a layer would see the parts of the last chunk."""
        return 0

    def recompute_layers(self, on: bool) -> None:
        """Refused, see `recomputable_layers`."""
        if on:
            raise ValueError(
                "large_batch=checkpoint does not go with model/sharing=adapters; use "
                "large_batch=cached"
            )

    def encode_images(self, images: Images | None) -> Tensor | None:
        """As the encoder; pictures have no adapters."""
        return self.encoder.encode_images(images)

    def forward(self, chunk: Chunk, visual: Tensor | None) -> Tensor:
        """Hidden states (B, L, H)."""
        if chunk.task is None:
            raise ValueError("this chunk does not say whose rows it holds; collate with separate")
        for adapter in self.adapters:
            adapter.part = chunk.task
        return self.encoder(chunk, visual)
