"""Order-aware loss for scored pairs, an alternative to score regression plus hinge."""

import torch
from torch import Tensor
from torch.nn import functional as F

from polyqwen.losses import checks
from polyqwen.losses.similarity import paired_cosine
from polyqwen.losses.types import LossOutput, NonNegativeLoss, Pairs


class CoSENTLoss(NonNegativeLoss):
    """Soft count of the pairs of rows whose cosines stand in the wrong order.

        L = log( 1 + Σ_{s_i > s_j} exp((cos_j − cos_i) / τ) )

    Reference: Su 2022, "CoSENT: a more effective sentence vector scheme than Sentence-BERT",
    kexue.fm/archives/8847; a part of AnglE, Li & Li 2023, arXiv 2309.12871. The sum is not
    divided by the number of pairs, so the level grows with the log of the batch size.

    Args:
        temperature: τ > 0; the reference's scale of 20 is τ = 0.05.

    Attributes:
        temperature: may be set from outside at any time.
    """

    def __init__(self, temperature: float = 0.05) -> None:
        super().__init__()
        self.temperature = checks.positive("temperature", temperature)

    def forward(self, pairs: Pairs) -> LossOutput:
        """Log-sum over ordered pairs of rows; raises ValueError where the pairs have no scores."""
        score = pairs.score_for(self)  # (B,)
        cosine = paired_cosine(pairs)  # (B,)
        total = order_loss(cosine, score, self.temperature)
        return LossOutput(total, {"cosent": total.detach()}, total.new_zeros(()))


def order_loss(similarity: Tensor, score: Tensor, temperature: float) -> Tensor:
    """log(1 + Σ_{s_i > s_j} exp((y_j − y_i) / τ)): a scalar, zero where no scores differ.

    Args:
        similarity: y, (B,), which should be ordered as the scores are.
        score: s, (B,).
        temperature: τ > 0.
    """
    ordered = score[:, None] > score[None, :]  # (B, B)
    excess = (similarity[None, :] - similarity[:, None]) / temperature  # (B, B)
    terms = excess.masked_fill(~ordered, -torch.inf).flatten()  # (B * B,)
    return F.pad(terms, (1, 0)).logsumexp(dim=0)  # the padded 0 is the 1 in the log
