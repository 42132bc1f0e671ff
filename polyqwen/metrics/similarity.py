"""Cosines against scores, and cosines of matching against non-matching pairs."""

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from polyqwen.metrics.ranks import relevant_links
from polyqwen.metrics.types import PairEmbeddings

STD_FLOOR = 1e-6  # below this a spread of cosines is float32 rounding


def pair_cosines(pairs: PairEmbeddings) -> Tensor:
    """Cosine of each row's query and document, (N,) float64."""
    return (pairs.query.double() * pairs.document.double()).sum(dim=1)


def spearman(cosines: ArrayLike, scores: ArrayLike) -> float:
    """Spearman's rank correlation with average ranks for ties, in [−1, 1].

    Pearson's correlation of the ranks. A constant side carries no order and gives 0.0 (scipy gives
    NaN), so that a collapsed model counts as useless rather than as unknown. Fewer than two rows or
    a NaN give NaN.

    Args:
        cosines: (N,).
        scores: (N,).
    """
    x, y = np.asarray(cosines, dtype=np.float64), np.asarray(scores, dtype=np.float64)
    if x.shape != y.shape or x.ndim != 1:
        raise ValueError(f"cosines {x.shape} and scores {y.shape} must be two equally long vectors")
    if len(x) < 2 or np.isnan(x).any() or np.isnan(y).any():
        return float("nan")
    from scipy.stats import rankdata  # a second to import

    x, y = rankdata(x), rankdata(y)
    x, y = x - x.mean(), y - y.mean()
    norm = np.sqrt((x @ x) * (y @ y))
    return float(x @ y / norm) if norm > 0 else 0.0


def similarity_gap(pairs: PairEmbeddings, relevant_from: float | None = None) -> dict[str, float]:
    """How far matching pairs stand apart from non-matching ones.

    gap = mean cos(matching) − mean cos(non-matching); gap_effect = gap / pooled standard deviation,
    sqrt((var₊ + var₋) / 2), Cohen's d with equal weight of both groups (there are about N² more
    non-matching pairs). Matching are the distinct pairs of matching rows. Non-matching are all
    distinct queries against all distinct documents but for those that share any row: equal contents
    are excluded, a pair scored low belongs to neither group.

    The N² cosines are never formed: their sum is Σq · Σd and the sum of their squares
    ⟨QᵀQ, DᵀD⟩. NaN without a matching or a non-matching pair.

    Args:
        pairs: N rows.
        relevant_from: lowest score of a matching pair; None takes every row.
    """
    listed = relevant_links(pairs)
    query = pairs.query[listed.query_row].double()  # (Q, D)
    document = pairs.document[listed.document_row].double()  # (P, D)
    inside = (query[listed.query] * document[listed.document]).sum(dim=1)  # (R,)
    count = len(query) * len(document) - len(inside)
    matching = matching_cosines(pairs, relevant_from)
    if not count or not len(matching):
        return {"gap": float("nan"), "gap_effect": float("nan")}
    mean = (query.sum(dim=0) @ document.sum(dim=0) - inside.sum()) / count
    square = ((query.T @ query) * (document.T @ document)).sum() - inside.square().sum()
    variance = (square / count - mean.square()).clamp(min=0)
    gap = matching.mean() - mean
    spread = ((matching.var(correction=0) + variance) / 2).sqrt()
    return {"gap": gap.item(), "gap_effect": (gap / spread.clamp(min=STD_FLOOR)).item()}


def matching_cosines(pairs: PairEmbeddings, relevant_from: float | None = None) -> Tensor:
    """Cosines of the distinct matching pairs, (R,) float64."""
    links = relevant_links(pairs, relevant_from)
    query = pairs.query[links.query_row[links.query]].double()  # (R, D)
    return (query * pairs.document[links.document_row[links.document]].double()).sum(dim=1)


def similarity_samples(
    pairs: PairEmbeddings, relevant_from: float | None = None, limit: int = 20_000, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Matching and non-matching cosines for a histogram, at most ``limit`` of each.

    Non-matching pairs are drawn at random (with replacement) among distinct queries × documents.

    Returns:
        Two vectors; the second is empty when there is no non-matching pair.
    """
    generator = torch.Generator().manual_seed(seed)
    matching = matching_cosines(pairs, relevant_from)
    matching = matching[torch.randperm(len(matching), generator=generator)[:limit]]
    links = relevant_links(pairs)
    num_queries, pool = len(links.query_row), len(links.document_row)
    drawn = torch.randint(max(num_queries * pool, 1), (limit,), generator=generator)
    drawn = drawn[~torch.isin(drawn, links.query * max(pool, 1) + links.document)]
    if not num_queries:
        drawn = drawn[:0]
    query = pairs.query[links.query_row[drawn // max(pool, 1)]].double()  # (≤ limit, D)
    document = pairs.document[links.document_row[drawn % max(pool, 1)]].double()
    return matching.numpy(), (query * document).sum(dim=1).numpy()
