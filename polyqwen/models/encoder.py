"""What an encoder reads: tokens of one chunk of contents, and the pictures of the whole batch."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from torch import Tensor


class Images(NamedTuple):
    """The distinct pictures of a batch, cut into patches.

    Attributes:
        patches: (P, 3 · patch²) uint8, RGB, ordered as Qwen2-VL expects them (the four patches of a
            merged token follow each other). One frame: a still picture's second frame is equal.
        grid: (I, 3) int64, patches of each picture along time, height and width.
        lengths: I numbers of patches, so that nobody waits for a device to learn them; None asks
            `grid`.
    """

    patches: Tensor
    grid: Tensor
    lengths: Sequence[int] | None = None


class Chunk(NamedTuple):
    """Contents of similar length, padded on the right to the longest.

    Attributes:
        ids: (B, L) int64.
        mask: (B, L) bool, True at real tokens.
        positions: (3, B, L) int64, M-RoPE positions along time, height and width.
        visual: (V,) int64, for every image placeholder of the chunk in reading order the row of the
            batch's visual tokens that belongs there; None for a chunk without pictures.
        task: (B,) int64, number of each content's task, for encoders with a part per task; None
            where all tasks share the encoder.
        lengths: B numbers of real tokens, so that nobody waits for a device to learn them; None
            asks `mask`.
    """

    ids: Tensor
    mask: Tensor
    positions: Tensor
    visual: Tensor | None
    task: Tensor | None = None
    lengths: Sequence[int] | None = None


class Encoder(Protocol):
    """What the model asks of an encoder, which is an `nn.Module` too."""

    @property
    def hidden_size(self) -> int:
        """H, width of the hidden states."""

    @property
    def recomputable_layers(self) -> int:
        """How many layers `recompute_layers` reaches; 0 if it cannot."""

    def recompute_layers(self, on: bool) -> None:
        """Whether layers keep their inputs alone and are computed again in the backward pass.

        Raises:
            ValueError: there are none that can be.
        """

    def encode_images(self, images: Images | None) -> Tensor | None:
        """The pictures of a batch to visual tokens, one row each: (V, H).

        A batch without pictures gives None, or, while a vision tower is trained, the visual token
        of a blank picture that no content shows: so its parameters are in the graph of every step
        of every rank.
        """

    def __call__(self, chunk: Chunk, visual: Tensor | None) -> Tensor:
        """Hidden states (B, L, H); those at padding are meaningless."""
