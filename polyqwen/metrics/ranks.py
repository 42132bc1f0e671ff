"""Where the relevant documents stand in a ranking of all distinct documents."""

from typing import NamedTuple

import torch
from torch import Tensor

from polyqwen.metrics.types import PairEmbeddings, distinct, matching_rows

TIE_TOLERANCE = 1e-6  # rounding of a float32 cosine; a collapsed encoder's noise is below it


class Links(NamedTuple):
    """Every (query, relevant document) pair once, ordered by query.

    Attributes:
        query: (R,) in [0, Q), without gaps.
        document: (R,) in [0, P).
        query_row: (Q,) a row that holds each distinct query.
        document_row: (P,) a row that holds each distinct document.
    """

    query: Tensor
    document: Tensor
    query_row: Tensor
    document_row: Tensor


class Ranks(NamedTuple):
    """Places of relevant documents; the relevant pairs of a query are neighbours, its best first.

    A relevant document stands on one of the places ``above + 1 … above + tied``, all equally
    likely: documents of the same cosine share their places.

    Attributes:
        query: (R,) in [0, Q).
        above: (R,) documents with a greater cosine.
        tied: (R,) documents with the same cosine, itself included (0 if the cosine is NaN).
        best: (Q,) index in [0, R) of each query's best relevant document.
        relevant_tied: (Q,) relevant documents among those tied with the best, itself included.
        pool: P, the number of distinct documents.
    """

    query: Tensor
    above: Tensor
    tied: Tensor
    best: Tensor
    relevant_tied: Tensor
    pool: int


def relevant_links(pairs: PairEmbeddings, relevant_from: float | None = None) -> Links:
    """Which distinct document is relevant to which distinct query.

    Queries are the distinct queries of matching rows. Documents are the distinct documents of *all*
    rows: a pair scored low still offers its document as a distractor.
    """
    rows = matching_rows(pairs, relevant_from).nonzero().flatten()  # (M,)
    query_first, query = distinct(pairs.query_key[rows])  # (Q,), (M,)
    document_row, document = distinct(pairs.document_key)  # (P,), (N,)
    pool = max(len(document_row), 1)
    links = torch.unique(query * pool + document[rows])  # (R,)
    return Links(links // pool, links % pool, rows[query_first], document_row)


def retrieval_ranks(
    pairs: PairEmbeddings, relevant_from: float | None = None, block: int = 1024
) -> Ranks:
    """Ranks of the relevant documents among all distinct documents, by cosine.

    Equal documents are one document of the pool, so an answer that repeats in other rows is right
    wherever it stands. At most ``block`` × ``block`` cosines are held at a time, in float64, so
    that neither the block size nor a reduced matmul precision can change a rank.

    Args:
        pairs: N rows.
        relevant_from: lowest score of a matching pair; None takes every row.
        block: rows and documents per block, ≥ 1.

    Raises:
        ValueError: ``block`` is below 1, or a threshold without scores.
    """
    if block < 1:
        raise ValueError(f"block={block} must be at least 1; 1024 suits most machines")
    links = relevant_links(pairs, relevant_from)
    documents = pairs.document[links.document_row]  # (P, D)
    cosine = torch.zeros(len(links.query), dtype=torch.float64)  # (R,)
    above, tied = torch.zeros_like(links.query), torch.zeros_like(links.query)  # (R,)
    for part in torch.arange(len(links.query)).split(block):
        queries = pairs.query[links.query_row[links.query[part]]].double()  # (b, D)
        own = documents[links.document[part]].double()  # (b, D)
        cosine[part] = (queries * own).sum(dim=1)
        for others in documents.split(block):
            lead = queries @ others.double().T - cosine[part, None]  # (b, block)
            above[part] += (lead > TIE_TOLERANCE).sum(dim=1)
            tied[part] += (lead.abs() <= TIE_TOLERANCE).sum(dim=1)
    return _best_first(links, cosine, above, tied)


def random_ranks(pairs: PairEmbeddings, relevant_from: float | None = None) -> Ranks:
    """Ranks of an encoder that knows nothing: all documents of the pool are tied."""
    links = relevant_links(pairs, relevant_from)
    pool = torch.full_like(links.query, len(links.document_row))  # (R,)
    cosine = torch.zeros(len(links.query), dtype=torch.float64)
    return _best_first(links, cosine, torch.zeros_like(pool), pool)


def _best_first(links: Links, cosine: Tensor, above: Tensor, tied: Tensor) -> Ranks:
    """Orders the relevant pairs of each query by cosine and counts ties with the best."""
    order = torch.argsort(cosine, descending=True, stable=True)
    order = order[torch.argsort(links.query[order], stable=True)]  # (R,)
    query, cosine = links.query[order], cosine[order]
    num_queries = len(links.query_row)
    best = torch.searchsorted(query, torch.arange(num_queries))  # (Q,)
    at_top = cosine >= cosine[best][query] - TIE_TOLERANCE  # (R,)
    relevant_tied = torch.bincount(query[at_top], minlength=num_queries)  # (Q,)
    return Ranks(query, above[order], tied[order], best, relevant_tied, len(links.document_row))
