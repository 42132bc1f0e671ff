"""Distillation of how a teacher's vectors of a batch lie to each other."""

import torch

from polyqwen.losses import checks
from polyqwen.losses.similarity import at_least_float32, cosine_matrix, list_divergence
from polyqwen.losses.types import LossOutput, NonNegativeLoss, Pairs


class RelationalKLLoss(NonNegativeLoss):
    """Divergence of the model's from a teacher's similarities between the contents of a batch.

        L = mean_i Σ_{j ∈ G(i)} P_ij log(P_ij / Q_ij)
        P_i = softmax_{G(i)}(cos(t_i, t_j) / τ),   Q_i = softmax_{G(i)}(cos(z_i, z_j) / τ)

    over the contents that the teacher has a vector t of: queries, documents, or both, which are
    then compared across as well. G(i) is every content of the batch but those equal to i.

    >= 0, and 0 where all cosines are the teacher's up to a constant for each i. Only similarities
    are compared, so the teacher's vectors may have any number of dimensions. Unlike the
    distillations of a score, it says something of every two contents of the batch.

    References: Koohpayegani et al. 2020 (CompRess), arXiv 2010.14713, and Fang et al. 2021 (SEED),
    arXiv 2101.04731, where the list is a queue; here it is the batch of all ranks, as for
    relations in Park et al. 2019 (RKD), arXiv 1904.05068.

    Args:
        temperature: τ > 0, in units of the cosine; low values look at the nearest contents only.

    Attributes:
        temperature: may be set from outside at any time.
    """

    def __init__(self, temperature: float = 0.1) -> None:
        super().__init__()
        self.temperature = checks.positive("temperature", temperature)

    def forward(self, pairs: Pairs) -> LossOutput:
        """Mean over contents; raises ValueError where the pairs have no vectors of a teacher."""
        sides = [
            (pairs.query, pairs.teacher_query, pairs.query_key),
            (pairs.document, pairs.teacher_document, pairs.document_key),
        ]
        known = [(z, t, key) for z, t, key in sides if t is not None]
        if not known:
            raise ValueError(
                f"{type(self).__name__} needs a teacher's vectors, but the pairs have none: map "
                "columns to the task's fields `teacher_query`, `teacher_document` or both"
            )
        student, teacher, key = (torch.cat(parts) for parts in zip(*known, strict=True))
        same = key[:, None] == key[None, :]  # (M, M)
        teacher = teacher.to(at_least_float32(student).dtype)
        goal, ours = (cosine_matrix(x, x) / self.temperature for x in (teacher, student))  # (M, M)
        total = list_divergence(goal, ours, same)
        return LossOutput(total, {"relational_kl": total.detach()}, total.new_zeros(()))
