"""What every metric receives: the embedded pairs of one task's whole split."""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F


class PairEmbeddings(NamedTuple):
    """The pairs of one split of one task, embedded; every embedding has unit norm.

    Keys are 64-bit content hashes: two equal keys mean the same text and the same picture. Row i's
    positive is ``document[i]``. Letters in shape comments: N rows, P distinct documents (the pool),
    Q distinct queries, R relevant pairs, D embedding size.

    Attributes:
        query: (N, D) float32 on the CPU.
        document: (N, D) float32 on the CPU.
        query_key: (N,) int64.
        document_key: (N,) int64.
        score: (N,) in [0, 1], or None for tasks whose pairs simply match.
        label: (N,) int64 classes, or None for tasks without labels.
        logits: (N, C) of the classes, or None.
    """

    query: Tensor
    document: Tensor
    query_key: Tensor
    document_key: Tensor
    score: Tensor | None = None
    label: Tensor | None = None
    logits: Tensor | None = None


def truncated(pairs: PairEmbeddings, dim: int) -> PairEmbeddings:
    """The first ``dim`` dimensions of every embedding, of unit norm again.

    Raises:
        ValueError: ``dim`` is not in [1, D].
    """
    size = pairs.query.shape[1]
    if not 1 <= dim <= size:
        raise ValueError(f"cannot cut embeddings of {size} dimensions to {dim}; give 1 to {size}")
    query, document = (F.normalize(x[:, :dim], dim=1) for x in (pairs.query, pairs.document))
    return pairs._replace(query=query, document=document)


def matching_rows(pairs: PairEmbeddings, relevant_from: float | None) -> Tensor:
    """Which rows are matching pairs.

    Args:
        pairs: N rows.
        relevant_from: lowest score of a matching pair, in [0, 1]; None takes every row.

    Returns:
        (N,) bool.

    Raises:
        ValueError: a threshold was given and the pairs have no scores.
    """
    if relevant_from is None:
        return torch.ones(len(pairs.query), dtype=torch.bool)
    if pairs.score is None:
        raise ValueError(
            f"relevant_from={relevant_from} needs scores and these pairs have none; "
            "use relevant_from=None for tasks without scores"
        )
    return pairs.score >= relevant_from


def distinct(keys: Tensor) -> tuple[Tensor, Tensor]:
    """Distinct contents in the order of their keys, hence independent of the order of the rows.

    Args:
        keys: (N,) int64.

    Returns:
        first: (U,) the first row of each distinct key.
        inverse: (N,) the place of each row's key in ``first``.
    """
    unique, inverse = torch.unique(keys, return_inverse=True)  # (U,), (N,)
    rows = torch.arange(len(keys))
    first = torch.full_like(unique, len(keys)).scatter_reduce(0, inverse, rows, "amin")  # (U,)
    return first, inverse
