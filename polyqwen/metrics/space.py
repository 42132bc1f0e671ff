"""Health of the embedding space: what retrieval numbers alone do not show."""

import torch
from torch import Tensor

from polyqwen.metrics.similarity import matching_cosines
from polyqwen.metrics.types import PairEmbeddings, distinct

SPACE_KEYS = ("alignment", "uniformity", "effective_rank", "modality_gap")
MAX_ROWS = 2048


def sample_distinct(embedding: Tensor, key: Tensor, max_rows: int = MAX_ROWS) -> Tensor:
    """At most ``max_rows`` distinct contents, evenly spaced in the order of their keys.

    Keys are hashes, so this is a random sample that is the same in every run and for every order of
    the rows.

    Args:
        embedding: (N, D).
        key: (N,).
        max_rows: ≥ 1.

    Returns:
        (≤ max_rows, D) float64.
    """
    first, _ = distinct(key)  # (U,)
    if len(first) > max_rows:
        first = first[torch.arange(max_rows) * len(first) // max_rows]
    return embedding[first].double()


def alignment(cosines: Tensor) -> float:
    """Mean squared distance of matching unit vectors, ‖q − d‖² = 2 − 2 cos, in [0, 4]; low is good.

    Wang and Isola, 2020, arXiv 2005.10242, with exponent 2. NaN without pairs.

    Args:
        cosines: (R,) of matching pairs.
    """
    return (2 - 2 * cosines).mean().item()


def uniformity(embedding: Tensor, t: float = 2.0) -> float:
    """log of the mean Gaussian potential, log mean_{i<j} exp(−t ‖x_i − x_j‖²), in [−4t, 0].

    Low means spread over the sphere, 0 means collapsed to a point. Wang and Isola, 2020,
    arXiv 2005.10242. NaN for fewer than two rows.

    Args:
        embedding: (N, D) of unit norm.
        t: > 0.
    """
    rows = len(embedding)
    squared = 2 - 2 * embedding @ embedding.T  # (N, N)
    potential = squared.mul(-t).exp().fill_diagonal_(0)
    return (potential.sum() / (rows * (rows - 1))).log().item()


def effective_rank(embedding: Tensor) -> float:
    """exp of the entropy of the normalised singular values, in [1, min(N, D)].

    How many directions the embeddings really use: 1 for a collapsed model, D for an isotropic one.
    Roy and Vetterli, 2007, "The effective rank: a measure of effective dimensionality" (EUSIPCO).
    Not centred, so a common offset of all embeddings counts as one direction. NaN without rows.

    Args:
        embedding: (N, D).
    """
    if not len(embedding) or not embedding.isfinite().all():
        return float("nan")
    tall = embedding if embedding.shape[0] >= embedding.shape[1] else embedding.T
    # Eigenvalues of the small Gram matrix are the squared singular values, at a tenth of the cost.
    singular = torch.linalg.eigvalsh(tall.T @ tall).clamp(min=0).sqrt()  # (min(N, D),)
    share = singular / singular.sum()
    return torch.special.entr(share).sum().exp().item()


def modality_gap(query: Tensor, document: Tensor) -> float:
    """Distance of the mean query and the mean document embedding, in [0, 2].

    Liang et al., 2022, arXiv 2203.02053. NaN without rows.

    Args:
        query: (Q, D) of unit norm.
        document: (P, D) of unit norm.
    """
    return (query.mean(dim=0) - document.mean(dim=0)).norm().item()


def space_health(
    pairs: PairEmbeddings, relevant_from: float | None = None, max_rows: int = MAX_ROWS
) -> dict[str, float]:
    """All monitors of ``SPACE_KEYS``.

    Alignment takes all matching pairs; the others take distinct contents, at most ``max_rows`` per
    side. Uniformity is the mean of both sides', as in the paper's code.
    """
    query = sample_distinct(pairs.query, pairs.query_key, max_rows)
    document = sample_distinct(pairs.document, pairs.document_key, max_rows)
    return {
        "alignment": alignment(matching_cosines(pairs, relevant_from)),
        "uniformity": (uniformity(query) + uniformity(document)) / 2,
        "effective_rank": effective_rank(torch.cat([query, document])),
        "modality_gap": modality_gap(query, document),
    }
