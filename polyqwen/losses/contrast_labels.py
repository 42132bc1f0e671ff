"""Regulariser that draws embeddings of one class together and apart from the others."""

import torch

from polyqwen.losses import checks
from polyqwen.losses.similarity import cosine_matrix, weighted_mean
from polyqwen.losses.types import LossOutput, NonNegativeLoss, Pairs


class LabelContrastLoss(NonNegativeLoss):
    """Supervised contrast over the rows of a batch.

        L_i = −(1/|P(i)|) Σ_{p ∈ P(i)} log( exp(c_ip/τ) / Σ_{a ∈ A(i)} exp(c_ia/τ) ), c = cosine

    A(i) are the other contents, P(i) those of them with the label of row i; rows without a P(i)
    count for nothing.

    Khosla et al. 2020, arXiv 2004.11362 (their L_out). We prefer it to the two dropout views of
    SimCSE (Gao et al. 2021, arXiv 2104.08821): labels are there, it costs no second pass through
    the encoder, and it works without dropout. Rows of equal content are no contrast to each other.

    Args:
        temperature: τ > 0.
    """

    def __init__(self, temperature: float = 0.1) -> None:
        super().__init__()
        self.temperature = checks.positive("contrast_temperature", temperature)

    def forward(self, pairs: Pairs) -> LossOutput:
        """Mean over rows that have a partner; raises ValueError where the rows have no labels."""
        label = pairs.label_for(self)  # (B,)
        others = pairs.query_key[:, None] != pairs.query_key[None, :]  # (B, B)
        partners = others & (label[:, None] == label[None, :])  # (B, B)
        logits = cosine_matrix(pairs.query, pairs.query) / self.temperature  # (B, B)
        lowest = torch.finfo(logits.dtype).min  # -inf would turn a row without others into NaN
        log_share = logits - logits.masked_fill(~others, lowest).logsumexp(dim=1, keepdim=True)
        count = partners.sum(dim=1)  # (B,)
        each = -log_share.masked_fill(~partners, 0.0).sum(dim=1) / count.clamp_min(1)  # (B,)
        total = weighted_mean(each, count > 0)
        return LossOutput(total, {"contrast": total.detach()}, total.new_zeros(()))
