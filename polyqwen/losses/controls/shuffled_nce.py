"""CONTROL: InfoNCE with wrong partners."""

import torch
from torch import Tensor

from polyqwen.losses.info_nce import InfoNCEBasedLoss
from polyqwen.losses.similarity import negative_mask
from polyqwen.losses.types import LossOutput, Pairs


class ShuffledNCELoss(InfoNCEBasedLoss):
    """Misleads on purpose: pulls every query to a wrong document, away from its own.

    `InfoNCELoss` after each row's document has been exchanged for `wrong_partner`'s. The partner
    follows from the content keys alone: no randomness, equal on all ranks and in any order of rows.
    A row for which the batch has no wrong document does not count.

    Args:
        temperature: τ > 0.

    Attributes:
        temperature: may be set from outside at any time.
    """

    def __init__(self, temperature: float = 0.07) -> None:
        super().__init__(temperature)

    def forward(self, pairs: Pairs) -> LossOutput:
        """Mean over the rows that have a wrong partner."""
        partner, found = wrong_partner(pairs)  # (B,), (B,)
        wrong = pairs._replace(
            document=pairs.document[partner], document_key=pairs.document_key[partner]
        )
        output = self.info_nce(wrong, found.to(pairs.query.dtype))
        return output._replace(components={"shuffled_nce": output.total.detach()})


def wrong_partner(pairs: Pairs) -> tuple[Tensor, Tensor]:
    """The row whose document stands in for the row's own, and whether there is one: (B,), (B,).

    Content keys are hashes; placed on a ring, a row's partner is the first document after its own
    that is a negative of the row, or would be if negatives came from the batch. Without repeated
    contents that is one cycle through the batch, a derangement. Two contents that are neighbours on
    the ring of the whole data set become partners whenever they meet, so the wrong lesson is a
    repeated one.
    """
    key = pairs.document_key  # (B,)
    wrong = negative_mask(pairs._replace(negatives_from="batch"))[:, : len(key)]  # (B, B)
    whole = torch.iinfo(key.dtype)
    ahead = key[None, :] - key[:, None] - 1  # (B, B); wraps around as a ring does
    # Flipping the sign bit orders them as unsigned numbers do: another document is always ahead.
    # Equal keys come last, at the largest number, where the mask puts all that is not wrong.
    ahead = (ahead ^ whole.min).masked_fill(~wrong, whole.max)  # (B, B)
    found = wrong.any(dim=1)  # (B,)
    nearest = ahead.argmin(dim=1) if len(key) else key.new_zeros(0)  # (B,)
    return torch.where(found, nearest, torch.arange(len(key), device=key.device)), found
