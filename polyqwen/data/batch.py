"""What a loader hands to the model: every content once, and who is whose pair."""

from typing import Any, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from polyqwen.models.encoder import Chunk, Images

SMALL = 1 << 18  # bytes of a tensor that is copied rather than shared


class TaskBatch(NamedTuple):
    """The pairs of one task; `query`, `document` and `negative` index the batch's contents.

    For texts with labels the document is the query.

    Attributes:
        query: (B,) int64.
        document: (B,) int64.
        query_key: (B,) int64 content hashes.
        document_key: (B,) int64.
        row: (B,) int64, rows in the split of the task that drew them.
        score: (B,) float32, or None.
        negative: (K,) int64 hard negatives of all rows, or None.
        negative_key: (K,) int64, or None.
        negative_row: (K,) int64, position in the batch of the row each was given for, or None.
        label: (B,) int64 classes, or None for a task without a label.
        teacher_query: (B, K) float32, a teacher's unit vectors of the queries, or None.
        teacher_document: (B, K) float32, or None.
    """

    query: Tensor
    document: Tensor
    query_key: Tensor
    document_key: Tensor
    row: Tensor
    score: Tensor | None
    negative: Tensor | None
    negative_key: Tensor | None
    negative_row: Tensor | None
    label: Tensor | None = None
    teacher_query: Tensor | None = None
    teacher_document: Tensor | None = None


class Batch(NamedTuple):
    """One micro-batch.

    Attributes:
        chunks: contents by rising length; content i is row i of all chunks put after one another.
        images: the distinct pictures, or None.
        tasks: the pairs by task; a task that is absent has no entry.
    """

    chunks: list[Chunk]
    images: Images | None
    tasks: dict[str, TaskBatch]

    def __reduce__(self) -> tuple[Any, ...]:
        """From a loader's worker, small tensors travel as bytes in one message.

        Torch hands every tensor over in a shared file of its own, a tenth of a millisecond each:
        of a batch's hundred, only the pictures are worth it.
        """
        return _received, tree_map(_as_bytes, tuple(self))


def _as_bytes(value: Any) -> Any:
    small = isinstance(value, Tensor) and value.device.type == "cpu" and value.nbytes <= SMALL
    return value.numpy() if small else value


def _received(*parts: Any) -> Batch:
    def tensor(value: Any) -> Any:
        return torch.from_numpy(value) if isinstance(value, np.ndarray) else value

    return Batch(*tree_map(tensor, parts))


def moved(batch: Batch, device: torch.device) -> Batch:
    """The batch on a device; on the CPU it is in place, and a walk through it takes 0.1 ms."""
    from lightning.fabric.utilities import move_data_to_device

    return batch if device.type == "cpu" else cast(Batch, move_data_to_device(batch, device))
