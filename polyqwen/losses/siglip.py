"""Pairwise sigmoid loss: every combination of query and document is judged on its own."""

from torch.nn import functional as F

from polyqwen.losses import checks
from polyqwen.losses.similarity import candidates, cosine_matrix, mean_of_rows, negative_mask
from polyqwen.losses.types import LossOutput, NonNegativeLoss, Pairs


class SigLIPLoss(NonNegativeLoss):
    """Logistic loss of "is this the row's document", summed over candidates.

        L = 1/B Σ_i Σ_{c ∈ C(i)} log(1 + exp(−z_ic (cos(q_i, c)/τ + b)))

    z is +1 for the row's own document and −1 for the negatives; C(i) leaves false negatives out
    (see `similarity.negative_mask`). No softmax couples the candidates, so a row keeps its pull
    towards its document whatever else is in the batch, also alone; only with given negatives alone
    a row without one does not count (see `similarity.mean_of_rows`). The sum is divided by the
    rows, not by the combinations, so the level grows with the number of negatives.

    Reference: Zhai et al. 2023, arXiv 2303.15343. There 1/τ = exp(t') and b are learned from
    t' = log 10 and b = −10; here both are fixed (or scheduled): a loss has no parameters. The bias
    lets the few positives outweigh the many negatives at the start.

    Args:
        temperature: τ = exp(−t') > 0.
        bias: b, finite; about −1/τ, so that a perfect match has a logit around 0 or above.

    Attributes:
        temperature: may be set from outside at any time.
    """

    def __init__(self, temperature: float = 0.1, bias: float = -10.0) -> None:
        super().__init__()
        self.temperature = checks.positive("temperature", temperature)
        self.bias = checks.finite("bias", bias)

    def forward(self, pairs: Pairs) -> LossOutput:
        """Mean over rows of the sum over candidates."""
        cosine = cosine_matrix(pairs.query, candidates(pairs))  # (B, B + K)
        logits = cosine / self.temperature + self.bias  # (B, B + K)
        mask = negative_mask(pairs)  # (B, B + K)
        negative = F.softplus(logits).masked_fill(~mask, 0.0)  # (B, B + K)
        each = F.softplus(-logits.diagonal()) + negative.sum(dim=1)  # (B,)
        total = mean_of_rows(each, pairs, mask)
        return LossOutput(total, {"siglip": total.detach()}, total.new_zeros(()))
