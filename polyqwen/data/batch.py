"""What a loader hands to the model: every content once, and who is whose pair."""

from typing import NamedTuple

from torch import Tensor

from polyqwen.models.inputs import Chunk, Images


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
