"""Contents end to end without padding, and attention within each of them."""

from collections.abc import Sequence
from itertools import groupby
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention.varlen import varlen_attn
from transformers import AttentionInterface

from polyqwen.models.encoder import Chunk

PACKED = "packed"  # the name of `packed_attention` among transformers' attentions


def has_kernel(device: torch.device) -> bool:
    """Whether flash attention for variable lengths runs there (NVIDIA from Ampere on)."""
    if device.type != "cuda" or torch.version.cuda is None:
        return False
    return torch.cuda.get_device_capability(device) >= (8, 0)


class Packing(NamedTuple):
    """Where segments (contents, pictures) that are laid end to end begin and end.

    Attributes:
        borders: (N + 1,) int32, the first row of each segment, then the number of rows.
        longest: rows of the longest segment.
        total: rows of all segments, ΣL.
        varlen: the device has a kernel for segments of different lengths.
    """

    borders: Tensor
    longest: int
    total: int
    varlen: bool

    @classmethod
    def of(cls, sizes: Tensor, lengths: Sequence[int]) -> "Packing":
        """From the segments' lengths, on the device (N,) and, the same, on the host."""
        borders = F.pad(sizes.cumsum(0, dtype=torch.int32), (1, 0))
        return cls(borders, max(lengths), sum(lengths), has_kernel(sizes.device))

    def segments(self) -> tuple[Tensor, Tensor]:
        """Number of each row's segment, and the row's place within it: (ΣL,) and (ΣL,) int64."""
        starts, sizes = self.borders[:-1], self.borders.diff()
        numbers = torch.arange(len(sizes), device=sizes.device)
        segment = numbers.repeat_interleave(sizes, output_size=self.total)
        return segment, torch.arange(self.total, device=sizes.device) - starts[segment]


class PackedChunk:
    """A chunk's real tokens in one row, and the way back to the padded form.

    Text rows of the positions count from 0 within each content: attention implementations that take
    borders from positions (four rows: text, time, height, width) see the same borders. With three
    rows they would see none, and contents would read each other.

    Args:
        chunk: padded on the right.

    Attributes:
        ids: (1, ΣL) int64.
        positions: (4, 1, ΣL) int64.
        packing: borders of the contents.
    """

    def __init__(self, chunk: Chunk) -> None:
        sizes = chunk.mask.sum(1)  # (B,)
        lengths = sizes.tolist() if chunk.lengths is None else chunk.lengths
        self.packing = Packing.of(sizes, lengths)
        row, place = self.packing.segments()
        self._shape = chunk.ids.shape
        self._places = row * self._shape[1] + place  # (ΣL,) in the padded chunk, flattened
        self.ids = chunk.ids.flatten()[self._places][None]
        positions = chunk.positions.flatten(1)[:, self._places]  # (3, ΣL)
        self.positions = torch.cat([place[None], positions])[:, None]

    def pad(self, hidden: Tensor) -> Tensor:
        """(1, ΣL, H) -> (B, L, H), zeros at padding."""
        rows, longest = self._shape
        padded = hidden.new_zeros(rows * longest, hidden.shape[-1])
        return padded.index_copy(0, self._places, hidden[0]).unflatten(0, (rows, longest))


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    packing: Packing,
    *,
    causal: bool,
    scale: float | None = None,
) -> Tensor:
    """``softmax(q kᵀ · scale) v`` within each segment.

    Flash attention for variable lengths (Dao 2023, arXiv 2307.08691; `varlen_attn`) in half
    precision on a GPU, elsewhere one call per run of neighbours of equal length: exact, too.

    Args:
        query: (ΣL, heads, d).
        key: (ΣL, heads / g, d); g query heads share one.
        value: (ΣL, heads / g, d).
        packing: borders of the segments.
        causal: no row sees a later one.
        scale: of the scores; None takes 1 / √d.

    Returns:
        (ΣL, heads, d).
    """
    device = query.device.type
    if torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device):
        # the kernel is not on autocast's list
        dtype = torch.get_autocast_dtype(device)
        query, key, value = query.to(dtype), key.to(dtype), value.to(dtype)
    if packing.varlen and query.dtype in (torch.float16, torch.bfloat16):
        mixed = varlen_attn(
            query,
            key,
            value,
            packing.borders,
            packing.borders,
            packing.longest,
            packing.longest,
            scale=scale,
            window_size=(-1, 0) if causal else (-1, -1),
            enable_gqa=True,
        )
        return cast(Tensor, mixed)  # it would be a pair if asked for more
    return _by_length(query, key, value, packing.borders, causal, scale)


@torch.compiler.disable
def _by_length(
    query: Tensor, key: Tensor, value: Tensor, borders: Tensor, causal: bool, scale: float | None
) -> Tensor:
    """Not compiled, since every mixture of lengths would be compiled anew."""
    runs = [(len(list(run)), length) for length, run in groupby(borders.diff().tolist())]
    sizes = [count * length for count, length in runs]
    mixed = []
    split = (x.split(sizes) for x in (query, key, value))
    for run, *parts in zip(runs, *split, strict=True):
        q, k, v = (x.unflatten(0, run).transpose(1, 2) for x in parts)
        shared = q.shape[1] != k.shape[1]
        states = F.scaled_dot_product_attention(
            q, k, v, is_causal=causal, scale=scale, enable_gqa=shared
        )  # (contents, heads, length, d)
        mixed.append(states.transpose(1, 2).flatten(0, 1))
    return torch.cat(mixed)


def packed_attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    packing: Packing,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    **_: object,
) -> tuple[Tensor, None]:
    """`attend` as transformers calls an attention: (1, heads, ΣL, d) -> (1, ΣL, heads, d)."""
    if dropout or sliding_window or attention_mask is not None:
        raise ValueError(
            "model.encoder.attention=packed knows no dropout, sliding window or mask in attention; "
            f"got dropout={dropout}, sliding_window={sliding_window}; use attention=sdpa"
        )
    query, key, value = (x[0].transpose(0, 1) for x in (query, key, value))
    mixed = attend(query, key, value, packing, causal=module.is_causal, scale=scaling)
    return mixed[None], None


AttentionInterface.register(PACKED, packed_attention)
