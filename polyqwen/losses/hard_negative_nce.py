"""Contrastive loss that counts close negatives for more."""

import math
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from polyqwen.losses import checks
from polyqwen.losses.similarity import candidates, cosine_matrix, mean_of_rows, negative_mask
from polyqwen.losses.types import LossOutput, NonNegativeLoss, Pairs


class HardNegativeNCELoss(NonNegativeLoss):
    """InfoNCE with negatives weighted by their own closeness.

        L_i = −log( e^{s_i} / (e^{s_i} + Σ_{c ∈ N(i)} w_c e^{s_c}) ),   s = cos / τ
        w_c = |N(i)| · e^{β s_c} / Σ_{c' ∈ N(i)} e^{β s_{c'}}

    N(i) holds the other rows' documents and all rows' hard negatives, without false negatives
    (see `similarity.negative_mask`): a weight on the closest would otherwise land on them first.
    β = 0 is InfoNCE. The gradient passes through the weights, as in the reference code.

    Reference: Robinson et al. 2021, arXiv 2010.04592, without its correction for false negatives
    of unknown place (τ⁺ = 0); we mask the known ones instead.

    Args:
        temperature: τ > 0.
        beta: β >= 0, how strongly the weights follow the closeness.

    Attributes:
        temperature: may be set from outside at any time.
    """

    warmed: ClassVar[tuple[str, ...]] = ("temperature",)

    def __init__(self, temperature: float = 0.07, beta: float = 1.0) -> None:
        super().__init__()
        self.temperature = checks.positive("temperature", temperature)
        self.beta = checks.not_negative("beta", beta)

    def forward(self, pairs: Pairs) -> LossOutput:
        """Mean over rows; a row without negatives gives 0, or does not count (`mean_of_rows`)."""
        logits = cosine_matrix(pairs.query, candidates(pairs)) / self.temperature  # (B, B + K)
        mask = negative_mask(pairs)  # (B, B + K)
        contrasted = mask.any(dim=1)  # (B,)
        number = mask.sum(dim=1).clamp_min(1).to(logits.dtype)  # (B,)
        closed = ~mask & contrasted[:, None]  # (B, B + K); a row without negatives is cut below
        weighed = _logsumexp(logits * (1 + self.beta), closed)  # (B,)
        weighed = weighed - _logsumexp(logits * self.beta, closed) + number.log()  # (B,)
        excess = (weighed - logits.diagonal()).masked_fill(~contrasted, -math.inf)  # (B,)
        # log(e^s + Σ) − s = softplus(log Σ − s); softplus(−inf) is 0, and so is its gradient
        total = mean_of_rows(F.softplus(excess), pairs, mask)
        chance = mean_of_rows((mask.sum(dim=1) + 1).to(logits.dtype).log(), pairs, mask)
        return LossOutput(total, {"hard_negative_nce": total.detach()}, chance)


def _logsumexp(logits: Tensor, closed: Tensor) -> Tensor:
    return logits.masked_fill(closed, -torch.inf).logsumexp(dim=1)  # (B,)
