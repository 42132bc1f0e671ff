"""What a loss receives and what it returns."""

from typing import NamedTuple

from torch import Tensor


class Pairs(NamedTuple):
    """A batch of matching pairs of one task; every embedding has unit norm.

    Keys are 64-bit content hashes: two equal keys mean the same text and the same picture.
    Row i's positive is ``document[i]``. Over several ranks the module gathers all fields first, so
    a loss always sees the whole global batch.

    Attributes:
        query: (B, D).
        document: (B, D), the positives.
        query_key: (B,) int64.
        document_key: (B,) int64.
        score: (B,) in [0, 1], or None for tasks without scores.
        negative: (K, D) hard negatives of all rows together, or None.
        negative_key: (K,) int64, or None.
        negative_row: (K,) int64, the row each hard negative was given for, or None.
        label: (B,) int64 classes, or None for tasks without a label; with labels the document is
            the query.
        teacher_query: (B, K) unit vectors that a teacher gave the queries, or None.
        teacher_document: (B, K), the same of the documents, or None.
    """

    query: Tensor
    document: Tensor
    query_key: Tensor
    document_key: Tensor
    score: Tensor | None = None
    negative: Tensor | None = None
    negative_key: Tensor | None = None
    negative_row: Tensor | None = None
    label: Tensor | None = None
    teacher_query: Tensor | None = None
    teacher_document: Tensor | None = None


class LossOutput(NamedTuple):
    """A task's loss and what it is made of.

    Attributes:
        total: scalar with a graph; what is weighted and summed over tasks.
        components: detached scalars by name, before their weights inside the loss.
        chance: detached scalar, the value when all candidates or classes look alike (mean log of
            their number); 0 where a loss compares none.
    """

    total: Tensor
    components: dict[str, Tensor]
    chance: Tensor

    def plus(self, other: "LossOutput", weight: float = 1.0) -> "LossOutput":
        """This loss with ``weight`` · another added; the level at chance stays this one's."""
        total = self.total + weight * other.total
        return LossOutput(total, self.components | other.components, self.chance)
