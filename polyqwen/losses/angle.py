"""Order-aware loss on the angle between embeddings read as complex numbers."""

from torch import Tensor

from polyqwen.losses.cosent import CoSENTLoss, order_loss
from polyqwen.losses.similarity import at_least_float32
from polyqwen.losses.types import LossOutput, Pairs


class AnglELoss(CoSENTLoss):
    """CoSENT with the angle of complex halves in place of the cosine.

        L = log( 1 + Σ_{s_i > s_j} exp((y_j − y_i) / τ) )
        y = |Re + Im| of the mean complex quotient of q = a + ib and d = c + id

    a, b are the two halves of the query, c, d those of the document. On unit vectors the sum over
    dimensions, which the reference takes after normalising by both lengths, is
    y = |Σ(ac + bd) + Σ(bc − ad)| = |cos(q, d) + Σ(bc − ad)|, in [0, √2]. The imaginary part keeps
    a gradient where the cosine is flat, at equal and at opposite embeddings.

    Reference: Li & Li 2023, arXiv 2309.12871. We follow its code (and Sentence Transformers'
    AnglELoss), where larger y means more similar; the printed formula has the difference the other
    way round. Two properties come with it: the absolute value makes opposite embeddings as good as
    equal ones, and y is no symmetric function of q and d. The paper never uses it alone, but next
    to CoSENT and InfoNCE, which rule both out.

    Args:
        temperature: τ > 0; Sentence Transformers' scale of 20 is τ = 0.05.

    Attributes:
        temperature: may be set from outside at any time.
    """

    def forward(self, pairs: Pairs) -> LossOutput:
        """Log-sum over ordered pairs of rows.

        Raises:
            ValueError: the pairs have no scores, or the embeddings' size is odd.
        """
        score = pairs.score_for(self)  # (B,)
        total = order_loss(angle_similarity(pairs), score, self.temperature)
        return LossOutput(total, {"angle": total.detach()}, total.new_zeros(()))


def angle_similarity(pairs: Pairs) -> Tensor:
    """y of each query with its own positive, (B,) in [0, √2]."""
    width = pairs.query.shape[1]
    if width % 2:
        raise ValueError(
            f"AnglELoss halves the embeddings, but their size is {width}: give an even output_size"
        )
    a, b = at_least_float32(pairs.query).chunk(2, dim=1)  # (B, D / 2) each
    c, d = at_least_float32(pairs.document).chunk(2, dim=1)  # (B, D / 2) each
    return (a * c + b * d + b * c - a * d).sum(dim=1).abs()  # (B,)
