"""Recall@k, MRR and nDCG as expectations over the order of tied documents.

Encoders that map many contents to one point tie thousands of documents. Counting the positive as
the first of them makes a collapsed model perfect; here it scores exactly what a random order does.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from polyqwen.metrics.ranks import Ranks, random_ranks, retrieval_ranks
from polyqwen.metrics.types import PairEmbeddings

NDCG_AT = 10


def _missed(tied: Tensor, relevant: Tensor, places: Tensor) -> Tensor:
    """Probability that the first ``places`` of ``tied`` shuffled documents hold none relevant.

    C(tied − places, relevant) / C(tied, relevant), as a product of ``relevant`` factors; NaN where
    nothing is tied.
    """
    tied, places = tied.double(), places.double()
    missed = torch.where(tied > 0, torch.ones_like(tied), torch.nan)
    for taken in range(int(relevant.max()) if len(relevant) else 0):
        factor = ((tied - places - taken) / (tied - taken)).clamp(min=0)
        missed = torch.where(taken < relevant, missed * factor, missed)
    return missed


def expected_recall(ranks: Ranks, k: int) -> Tensor:
    """Probability that at least one relevant document is among the first k, (Q,) in [0, 1].

    With one relevant document per query this is recall@k; with several any of them counts.
    """
    above, tied = ranks.above[ranks.best], ranks.tied[ranks.best]  # (Q,)
    places = torch.minimum((k - above).clamp(min=0), tied)
    return 1 - _missed(tied, ranks.relevant_tied, places)


def expected_reciprocal_rank(ranks: Ranks) -> Tensor:
    """E[1 / rank of the best relevant document], (Q,) in (0, 1].

    Over the places j = 1 … tied of the best one's ties: Σ_j P(first relevant at j) / (above + j).
    """
    above, tied = ranks.above[ranks.best], ranks.tied[ranks.best]  # (Q,)
    values = torch.where(tied == 1, 1.0 / (above + 1.0).double(), torch.nan)  # (Q,), most of them
    shared = (tied > 1).nonzero().flatten()
    cases = torch.stack([above, tied, ranks.relevant_tied])[:, shared]
    cases, case_of = torch.unique(cases, dim=1, return_inverse=True)  # (3, U)
    expected = torch.full((cases.shape[1],), torch.nan, dtype=torch.float64)  # (U,)
    for i, (before, alike, relevant) in enumerate(cases.T.tolist()):
        place = torch.arange(alike + 1)
        missed = _missed(
            torch.full_like(place, alike), torch.full_like(place, relevant), place
        )  # (tied + 1,)
        expected[i] = ((missed[:-1] - missed[1:]) / (before + place[1:])).sum()
    values[shared] = expected[case_of]
    return values


def expected_ndcg(ranks: Ranks, k: int = NDCG_AT) -> Tensor:
    """E[nDCG@k] with binary relevance, (Q,) in [0, 1]; exact, because gains add up.

    nDCG@k = Σ_relevant [rank ≤ k] / log2(1 + rank), over the same sum for relevant documents on the
    first places. Järvelin and Kekäläinen, 2002, doi:10.1145/582415.582418.
    """
    places = torch.arange(1, k + 1, dtype=torch.float64)
    gain = torch.cat([torch.zeros(1).double(), (1 / torch.log2(1 + places)).cumsum(0)])  # (k + 1,)
    last = (ranks.above + ranks.tied).clamp(max=k)  # (R,)
    expected = (gain[last] - gain[ranks.above.clamp(max=k)]) / ranks.tied  # (R,)
    num_queries = len(ranks.best)
    total = torch.zeros(num_queries).double().index_add(0, ranks.query, expected)  # (Q,)
    relevant = torch.bincount(ranks.query, minlength=num_queries)  # (Q,)
    return total / gain[relevant.clamp(max=k)]


class RetrievalMetrics:
    """Retrieval among all distinct documents of a split.

    Every value is a mean over the distinct queries of matching rows; a query with several positives
    (equal queries in several rows) takes any of them as right, and nDCG takes all of them. Without
    a query the values are NaN, and so they are when an embedding of a matching pair is not finite.

    Args:
        ks: cut-offs of recall, each ≥ 1.
        min_score: lowest score of a matching pair, in [0, 1]; None takes every row.
        block: rows and documents per block of cosines, ≥ 1.

    Raises:
        ValueError: a value is out of its range.
    """

    def __init__(
        self, ks: Sequence[int] = (1, 5, 10), min_score: float | None = None, block: int = 1024
    ) -> None:
        if not ks or min(ks) < 1:
            raise ValueError(f"ks={tuple(ks)} must hold cut-offs of 1 or more, such as (1, 5, 10)")
        if min_score is not None and not 0 <= min_score <= 1:
            raise ValueError(f"min_score={min_score} must lie in [0, 1], or be None for all rows")
        self.ks, self.min_score, self.block = tuple(ks), min_score, block

    def __call__(self, pairs: PairEmbeddings) -> dict[str, float]:
        """``recall@k`` for every k, ``mrr``, ``ndcg@10``, ``pool`` and ``queries``."""
        return self.summary(retrieval_ranks(pairs, self.min_score, self.block))

    def chance(self, pairs: PairEmbeddings) -> dict[str, float]:
        """The same values, expected of a random order of the same pool."""
        return self.summary(random_ranks(pairs, self.min_score))

    def summary(self, ranks: Ranks) -> dict[str, float]:
        """Means over the queries."""
        values = {f"recall@{k}": expected_recall(ranks, k).mean().item() for k in self.ks}
        values["mrr"] = expected_reciprocal_rank(ranks).mean().item()
        values[f"ndcg@{NDCG_AT}"] = expected_ndcg(ranks).mean().item()
        return {**values, "pool": float(ranks.pool), "queries": float(len(ranks.best))}
