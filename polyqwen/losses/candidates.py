"""Losses to choose from, with what a choice has to know of them."""

from torch import nn

from polyqwen.losses.types import LossOutput, Pairs

NEEDS = ("pairs", "negatives", "scores", "teacher", "vectors", "labels")
FAMILIES = (
    "contrastive",  # matching against other documents
    "margin",  # hinges between similarities
    "score_value",  # the scores themselves
    "score_order",  # their order or correlation
    "distillation",  # a teacher's similarities
    "attraction",  # matching pairs, nothing else
    "regulariser",  # the space, whatever the pairs
)


class Candidate(nn.Module):
    """A loss of a library: it trains a task beside the task's own loss.

    Schedules of temperatures and other settings of the tasks' losses leave it alone.

    Args:
        loss: from `Pairs` to `LossOutput`.
        needs: what a batch must hold beside its pairs: "pairs" (nothing more), "negatives" (given
            hard ones), "scores", "teacher" (similarities to distil, which we read from the scores:
            see `similarity_kl`), "vectors" (a teacher's) or "labels".
        family: what the loss looks at, one of `FAMILIES`.
        control: misleads on purpose, see `polyqwen.losses.controls`.

    Raises:
        ValueError: no such need or family.
    """

    def __init__(self, loss: nn.Module, needs: str, family: str, control: bool = False) -> None:
        super().__init__()
        if needs not in NEEDS:
            raise ValueError(f"needs is {needs!r}: choose one of {NEEDS}")
        if family not in FAMILIES:
            raise ValueError(f"family is {family!r}: choose one of {FAMILIES}")
        self.loss, self.needs, self.family, self.control = loss, needs, family, control

    @property
    def lower_bound(self) -> float | None:
        """The loss's own; None where it has none."""
        return getattr(self.loss, "lower_bound", None)

    def forward(self, pairs: Pairs) -> LossOutput:
        """The loss of a batch that is `available`."""
        return self.loss(pairs)


def available(loss: nn.Module, pairs: Pairs) -> bool:
    """Whether the batch holds what the loss needs; a task's own loss finds it always.

    Looks at shapes only, never at values, so it costs no wait for the device and, on the gathered
    batch, is the same on all ranks. A candidate that is available may still find nothing to say (no
    two scores differ, all documents are the same) and then gives a zero with zero gradients.
    `Pairs` has no labels: who needs them is never available.
    """
    if not isinstance(loss, Candidate):
        return True
    if not len(pairs.query):
        return False
    if loss.needs == "negatives":
        return pairs.negative is not None and len(pairs.negative) > 0
    if loss.needs in ("scores", "teacher"):
        return pairs.score is not None
    if loss.needs == "vectors":
        return pairs.teacher_query is not None or pairs.teacher_document is not None
    return loss.needs == "pairs"
