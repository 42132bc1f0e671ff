"""Contrastive loss over in-batch documents and hard negatives."""

import warnings
from typing import ClassVar

import torch
from torch import Tensor

from polyqwen.losses import checks
from polyqwen.losses.similarity import (
    candidates,
    cosine_matrix,
    negative_mask,
    weighted_mean,
    with_positives,
)
from polyqwen.losses.types import LossOutput, NonNegativeLoss, Pairs


class InfoNCELoss(NonNegativeLoss):
    """Softmax cross entropy of each query's positive among all candidate documents.

        L_i = −log( exp(cos(q_i, d_i)/τ) / Σ_{c ∈ C(i)} exp(cos(q_i, c)/τ) )

    C(i) holds the row's own document, the other rows' documents and *all* rows' hard negatives,
    without false negatives; or one of the two kinds of negatives, as the pairs' ``negatives_from``
    says (see `similarity.negative_mask`). With "given", rows without a negative do not count.

    References: van den Oord et al. 2018, arXiv 1807.03748; hard negatives shared by the batch:
    Karpukhin et al. 2020, arXiv 2004.04906; both directions: Radford et al. 2021,
    arXiv 2103.00020. We deviate by masking false negatives and by an optional weight per row.

    Args:
        temperature: τ > 0, logits are cosine / τ.
        symmetric: also classify the query among all queries given the document, and average the
            two directions. Hard negatives have no query and serve the first direction only; where
            they are the only negatives, there is no second direction.

    Attributes:
        temperature: may be set from outside at any time.
        warmed: settings that the warm-ups of the default callbacks move, see `LossWarmup`.
    """

    warmed: ClassVar[tuple[str, ...]] = ("temperature",)

    def __init__(self, temperature: float = 0.07, symmetric: bool = False) -> None:
        super().__init__()
        self.temperature = checks.positive("temperature", temperature)
        self.symmetric = symmetric
        self._warned = False

    def forward(self, pairs: Pairs, row_weight: Tensor | None = None) -> LossOutput:
        """Weighted mean over rows; a row of weight 0 is no anchor, yet a negative for others.

        Args:
            pairs: the batch.
            row_weight: (B,) >= 0; None weighs all rows alike.
        """
        rows = pairs.query.shape[0]
        document = candidates(pairs)  # (B + K, D)
        if rows == 1 and document.shape[0] == 1:
            self._warn_once()
        logits = cosine_matrix(pairs.query, document) / self.temperature  # (B, B + K)
        negatives = negative_mask(pairs)  # (B, B + K)
        mask = with_positives(negatives)  # (B, B + K)
        weight = _row_weight(logits, row_weight)  # (B,)
        if not pairs.in_batch:
            weight = weight * negatives.any(dim=1)  # (B,)

        total, chance = _cross_entropy(logits, mask, weight)
        if self.symmetric and pairs.in_batch:
            back, back_chance = _cross_entropy(logits[:, :rows].T, mask[:, :rows].T, weight)
            total, chance = (total + back) / 2, (chance + back_chance) / 2
        return LossOutput(total, {"info_nce": total.detach()}, chance)

    def _warn_once(self) -> None:
        if not self._warned:
            self._warned = True
            warnings.warn(
                "InfoNCELoss: a batch of one row without hard negatives has nothing to contrast, "
                "its loss is 0. Raise the batch size or give hard negatives (said once)",
                stacklevel=3,
            )


def _row_weight(logits: Tensor, row_weight: Tensor | None) -> Tensor:
    rows = logits.shape[:1]
    if row_weight is None:
        return logits.new_ones(rows)  # (B,)
    if row_weight.shape != rows:
        raise ValueError(f"row_weight has shape {tuple(row_weight.shape)}: give {tuple(rows)}")
    return row_weight.to(logits.dtype)  # (B,)


def _cross_entropy(logits: Tensor, mask: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Mean cross entropy of the diagonal among unmasked columns, and its value by chance."""
    everything = logits.masked_fill(~mask, -torch.inf).logsumexp(dim=1)  # (B,)
    chance = mask.sum(dim=1).to(logits.dtype).log()  # (B,)
    return (
        weighted_mean(everything - logits.diagonal(), weight),
        weighted_mean(chance, weight.detach()),
    )


class InfoNCEBasedLoss(NonNegativeLoss):
    """Base of losses that hold an `InfoNCELoss`, whose temperature is theirs."""

    warmed: ClassVar[tuple[str, ...]] = ("temperature",)

    def __init__(self, temperature: float = 0.07, symmetric: bool = False) -> None:
        super().__init__()
        self.info_nce = InfoNCELoss(temperature, symmetric)

    @property
    def temperature(self) -> float:
        """τ of InfoNCE; may be set from outside at any time."""
        return self.info_nce.temperature

    @temperature.setter
    def temperature(self, value: float) -> None:
        self.info_nce.temperature = value
