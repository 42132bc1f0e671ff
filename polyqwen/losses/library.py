"""Losses to choose from, with what a choice has to know of them."""

from torch import nn

from polyqwen.losses.types import Pairs

NEEDS = ("pairs", "negatives", "scores", "teacher", "labels")
FAMILIES = (
    "contrastive",  # matching against other documents
    "margin",  # hinges between similarities
    "score_value",  # the scores themselves
    "score_order",  # their order or correlation
    "distillation",  # a teacher's similarities
    "attraction",  # matching pairs, nothing else
    "regulariser",  # the space, whatever the pairs
)


class Candidate:
    """A loss of a library.

    Args:
        loss: from `Pairs` to `LossOutput`.
        needs: what a batch must hold beside its pairs: "pairs" (nothing more), "negatives" (given
            hard ones), "scores", "teacher" (similarities to distil, which we read from the scores:
            see `similarity_kl`) or "labels".
        family: what the loss looks at, one of `FAMILIES`.
        anchor: always takes part.
        control: misleads on purpose, see `polyqwen.losses.controls`.

    Raises:
        ValueError: no such need or family, or a control as an anchor.
    """

    def __init__(
        self,
        loss: nn.Module,
        needs: str,
        family: str,
        anchor: bool = False,
        control: bool = False,
    ) -> None:
        if needs not in NEEDS:
            raise ValueError(f"needs is {needs!r}: choose one of {NEEDS}")
        if family not in FAMILIES:
            raise ValueError(f"family is {family!r}: choose one of {FAMILIES}")
        if anchor and control:
            raise ValueError(
                "anchor and control are both true: a control misleads, so choose another anchor"
            )
        self.loss = loss
        self.needs = needs
        self.family = family
        self.anchor = anchor
        self.control = control


def available(candidate: Candidate, pairs: Pairs) -> bool:
    """Whether the batch holds what the candidate needs.

    Looks at shapes only, never at values, so it costs no wait for the device and, on the gathered
    batch, is the same on all ranks. A candidate that is available may still find nothing to say (no
    two scores differ, all documents are the same) and then gives a zero with zero gradients.
    `Pairs` has no labels: who needs them is never available.
    """
    if not len(pairs.query):
        return False
    if candidate.needs == "negatives":
        return pairs.negative is not None and len(pairs.negative) > 0
    if candidate.needs in ("scores", "teacher"):
        return pairs.score is not None
    return candidate.needs == "pairs"
