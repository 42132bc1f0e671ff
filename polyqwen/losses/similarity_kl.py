"""Distillation of a distribution over the batch's pairs."""

from polyqwen.losses import checks
from polyqwen.losses.similarity import list_divergence, unit_similarity
from polyqwen.losses.types import LossOutput, NonNegativeLoss, Pairs


class SimilarityKLLoss(NonNegativeLoss):
    """Divergence of the predicted from the teacher's distribution over a list of pairs.

        L = mean_i Σ_{j ∈ G(i)} P_j log(P_j / Q_j)
        P = softmax_{G(i)}(s / τ),   Q = softmax_{G(i)}(ŝ / τ),   ŝ = (cos(q, d) + 1) / 2

    >= 0, and 0 where ŝ is s up to a constant in each list; a list of one pair gives 0.

    The teacher is the pair's `score`: gold, or a stronger model's similarity stored in that column.
    It was given for (q_i, d_i) alone and says nothing of q_i with another row's document. So the
    list G(i) is made of pairs: the whole batch, or with ``same_query`` the rows with row i's query,
    which is the usual list of one query's documents where the data has several for each.

    References: top-one probabilities of a list, Cao et al. 2007, "Learning to rank: from pairwise
    approach to listwise approach"; with a temperature, Hinton et al. 2015, arXiv 1503.02531, whose
    factor τ² we leave out.

    Args:
        temperature: τ > 0, in units of ŝ; low values look at the highest scores only.
        same_query: compare only rows with the same query.

    Attributes:
        temperature: may be set from outside at any time.
    """

    def __init__(self, temperature: float = 0.1, same_query: bool = False) -> None:
        super().__init__()
        self.temperature = checks.positive("temperature", temperature)
        self.same_query = same_query

    def forward(self, pairs: Pairs) -> LossOutput:
        """Mean over rows of their list's divergence; raises ValueError without scores."""
        predicted = unit_similarity(pairs)  # (B,)
        score = pairs.score_for(self).to(predicted.dtype)  # (B,)
        other = pairs.query_key[:, None] != pairs.query_key[None, :]  # (B, B)
        other = other & self.same_query  # (B, B), rows outside of the list
        goal, ours = ((x / self.temperature).expand_as(other) for x in (score, predicted))
        total = list_divergence(goal, ours, other)
        return LossOutput(total, {"similarity_kl": total.detach()}, total.new_zeros(()))
