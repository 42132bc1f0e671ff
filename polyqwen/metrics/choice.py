"""Which queries of a split to show to a person."""

import torch
from torch import Tensor

from polyqwen.metrics.ranks import relevant_links, retrieval_ranks
from polyqwen.metrics.types import PairEmbeddings, matching_rows

SHORTLIST = 256  # at least so many of the worst queries are compared by margin


def spread_queries(pairs: PairEmbeddings, relevant_from: float | None, count: int) -> Tensor:
    """Rows of at most ``count`` matching pairs, evenly spaced over the split."""
    rows = matching_rows(pairs, relevant_from).nonzero().flatten()
    return rows[torch.linspace(0, len(rows) - 1, min(count, len(rows))).long()]


def hardest_queries(pairs: PairEmbeddings, relevant_from: float | None, count: int) -> Tensor:
    """Rows of the ``count`` distinct queries whose best right document stands lowest.

    Among equal ranks the worst margin comes first: cosine of the best right minus that of the best
    wrong document. Ties share the mean of their places, so a collapsed model has no good ranks.

    Args:
        pairs: N rows.
        relevant_from: lowest score of a matching pair; None takes every row.
        count: ≥ 1.
    """
    ranks = retrieval_ranks(pairs, relevant_from)
    links = relevant_links(pairs, relevant_from)
    place = ranks.above[ranks.best] + (ranks.tied[ranks.best] - 1) / 2  # (Q,)
    worst = place.argsort(descending=True, stable=True)[: max(count, SHORTLIST)]  # (S,)
    rows = links.query_row[worst]
    cosines = pairs.query[rows] @ pairs.document[links.document_row].T  # (S, P)
    right = right_documents(pairs, rows, links.document_row, relevant_from)
    best_right = cosines.masked_fill(~right, -2.0).amax(dim=1)
    best_wrong = cosines.masked_fill(right, -2.0).amax(dim=1)
    order = (best_right - best_wrong).argsort(stable=True)
    order = order[place[worst][order].argsort(descending=True, stable=True)]
    return rows[order[:count]]


def right_documents(
    pairs: PairEmbeddings, queries: Tensor, documents: Tensor, relevant_from: float | None
) -> Tensor:
    """Which documents answer which queries: those of any matching row with an equal query.

    Args:
        pairs: N rows.
        queries: (S,) rows whose query is meant.
        documents: (P,) rows whose document is meant.
        relevant_from: lowest score of a matching pair; None takes every row.

    Returns:
        (S, P) bool.
    """
    matching = matching_rows(pairs, relevant_from)
    rows = [
        torch.isin(
            pairs.document_key[documents],
            pairs.document_key[matching & (pairs.query_key == pairs.query_key[query])],
        )
        for query in queries
    ]
    return torch.stack(rows) if rows else torch.zeros(0, len(documents), dtype=torch.bool)
