"""What a loss receives and what it returns, and the base of losses that are never negative."""

from typing import NamedTuple

from torch import Tensor, nn

from polyqwen.losses.negatives import NegativesFrom


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
        negatives_from: "batch", other rows' documents are a row's negatives; "given", those given
            for the row; "both", other rows' documents and the given negatives of all rows.
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
    negatives_from: NegativesFrom = "both"

    @property
    def in_batch(self) -> bool:
        """Whether other rows' documents are a row's negatives, and other queries a document's."""
        return self.negatives_from != "given"

    def score_for(self, loss: nn.Module) -> Tensor:
        """The similarity scores (B,); raises ValueError, naming the loss, where there are none."""
        if self.score is None:
            raise ValueError(
                f"{type(loss).__name__} needs scores, but pairs.score is None: map a column to the "
                "task's field `score`, or give the task a loss without scores (InfoNCELoss, "
                "GroundedLoss)"
            )
        return self.score

    def label_for(self, loss: nn.Module, classes: int | None = None) -> Tensor:
        """The classes (B,); raises ValueError, naming the loss, where there are none.

        Args:
            loss: that needs them.
            classes: their number, looked at on the CPU only: elsewhere it would wait for the
                device.
        """
        label, name = self.label, type(loss).__name__
        if label is None:
            raise ValueError(
                f"{name} needs labels, but pairs.label is None: give the task a label and its "
                "classes, and map the column to its field `labels`"
            )
        if classes is not None and label.device.type == "cpu" and len(label):
            low, high = int(label.min()), int(label.max())
            if low < 0 or high >= classes:
                raise ValueError(
                    f"{name} has {classes} classes, but pairs.label holds {low} to {high}: give "
                    "the loss the classes of the task"
                )
        return label


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


class NonNegativeLoss(nn.Module):
    """Base of losses whose values are at least 0, as strategies that divide by losses must know."""

    lower_bound = 0.0
