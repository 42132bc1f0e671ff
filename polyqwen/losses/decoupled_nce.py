"""Contrastive loss whose denominator leaves the positive out."""

from typing import ClassVar

import torch
from torch import Tensor, nn

from polyqwen.losses import checks
from polyqwen.losses.similarity import candidates, cosine_matrix, negative_mask, weighted_mean
from polyqwen.losses.types import LossOutput, Pairs


class DecoupledNCELoss(nn.Module):
    """Decoupled contrastive learning (DCL): InfoNCE without the positive in its denominator.

        L_i = −cos(q_i, d_i)/τ + log Σ_{c ∈ N(i)} exp(cos(q_i, c)/τ)

    N(i) holds the other rows' documents and all rows' hard negatives, without false negatives
    (see `similarity.negative_mask`). In InfoNCE the gradient of an easy row is scaled down by the
    softmax of its positive; here it is not, which helps small batches. The InfoNCE of row i is
    log(1 + exp(L_i)), so L_i itself may be negative. Rows without a negative count neither in the
    sum nor in the mean.

    Reference: Yeh et al. 2022, arXiv 2110.06848, the unweighted form; we deviate by masking false
    negatives and by one direction as the default.

    Args:
        temperature: τ > 0, logits are cosine / τ.
        symmetric: also tell the query among all queries given the document, and average the two
            directions. Hard negatives have no query and serve the first direction only; where
            they are the only negatives, there is no second direction.

    Attributes:
        temperature: may be set from outside at any time.
    """

    warmed: ClassVar[tuple[str, ...]] = ("temperature",)

    def __init__(self, temperature: float = 0.07, symmetric: bool = False) -> None:
        super().__init__()
        self.temperature = checks.positive("temperature", temperature)
        self.symmetric = symmetric

    @property
    def lower_bound(self) -> float:
        """−2/τ, with a matching pair that is equal and one negative that is opposite."""
        return -2.0 / self.temperature

    def forward(self, pairs: Pairs) -> LossOutput:
        """Mean over the rows that have a negative."""
        rows = pairs.query.shape[0]
        logits = cosine_matrix(pairs.query, candidates(pairs)) / self.temperature  # (B, B + K)
        mask = negative_mask(pairs)  # (B, B + K)
        total, chance = _decoupled(logits, mask)
        if self.symmetric and pairs.in_batch:
            back, back_chance = _decoupled(logits[:, :rows].T, mask[:, :rows].T)
            total, chance = (total + back) / 2, (chance + back_chance) / 2
        return LossOutput(total, {"decoupled_nce": total.detach()}, chance)


def _decoupled(logits: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Mean over rows with a negative, and its value by chance (mean log of their number)."""
    contrasted = mask.any(dim=1)  # (B,)
    # A row without negatives keeps all its columns: it has weight 0, and no −inf to subtract.
    closed = ~mask & contrasted[:, None]  # (B, B + K)
    negatives = logits.masked_fill(closed, -torch.inf).logsumexp(dim=1)  # (B,)
    chance = mask.sum(dim=1).clamp_min(1).to(logits.dtype).log()  # (B,)
    return (
        weighted_mean(negatives - logits.diagonal(), contrasted),
        weighted_mean(chance, contrasted),
    )
