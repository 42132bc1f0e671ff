"""Cosines in full precision, masks of negatives, and means that stay defined without values."""

from collections.abc import Callable

import torch
from torch import Tensor

from polyqwen.losses.types import Pairs


def at_least_float32(x: Tensor) -> Tensor:
    """Casts half types up to float32; float32 and float64 stay as they are."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def cosine_matrix(a: Tensor, b: Tensor) -> Tensor:
    """Cosines of all pairs of unit vectors, (M, D) and (N, D) → (M, N).

    Autocast is off inside: bf16 rounds a cosine near 1 to steps of 0.004, which a temperature
    of 0.07 turns into steps of 0.06 in the logits.
    """
    with torch.autocast(a.device.type, enabled=False):
        return at_least_float32(a) @ at_least_float32(b).T  # (M, N)


def paired_cosine(pairs: Pairs) -> Tensor:
    """Cosine of each query with its own positive, (B,)."""
    return (at_least_float32(pairs.query) * at_least_float32(pairs.document)).sum(dim=1)  # (B,)


def unit_similarity(pairs: Pairs) -> Tensor:
    """Predicted similarity ŝ = (cos + 1) / 2 of each pair, (B,) in [0, 1]."""
    return (paired_cosine(pairs) + 1) / 2  # (B,)


def candidates(pairs: Pairs) -> Tensor:
    """The documents every query is compared with: all positives, then all hard negatives.

    Returns:
        (B + K, D); column j < B of a similarity matrix is ``document[j]``, the rest ``negative``.
    """
    if pairs.negative is None:
        return pairs.document  # (B, D)
    return torch.cat([pairs.document, pairs.negative])  # (B + K, D)


def negative_mask(pairs: Pairs) -> Tensor:
    """True where a candidate may be a row's negative, (B, B + K).

    A candidate is *no* negative of row i when it is, by content key,

    * a positive of row i's query: the row's own, or that of another row with the same query, in
      whatever row or hard negative that document turns up again;
    * the query itself (pairs of sentences share both sides: (A, B) and (C, A)).

    The own positive is thus False here; `with_positives` adds it back. Of the others, all count
    with ``pairs.negatives_from`` "both", documents alone with "batch", and the negatives given for
    row i alone with "given".
    """
    key = _candidate_keys(pairs)  # (B + K,)
    query, document = _group(pairs.query_key), _group(key)  # (B,), (B + K,)
    known = key.new_zeros(query.shape[0], key.shape[0], dtype=torch.bool)  # (B, B + K)
    known[query, document[: query.shape[0]]] = True  # by group of queries, group of documents
    known = known[query][:, document]  # (B, B + K), by row and candidate
    mask = ~known & (key != pairs.query_key[:, None])  # (B, B + K)
    if pairs.negatives_from == "batch":
        mask[:, query.shape[0] :] = False
    elif pairs.negatives_from == "given":
        mask = mask & own_negative_mask(pairs)  # (B, B + K)
    return mask


def with_positives(negatives: Tensor) -> Tensor:
    """True where a candidate counts in a row's softmax: own positive and negatives, (B, B + K)."""
    own = torch.eye(*negatives.shape, dtype=torch.bool, device=negatives.device)  # (B, B + K)
    return negatives | own


def own_negative_mask(pairs: Pairs) -> Tensor:
    """True where a candidate is a hard negative given for this very row, (B, B + K)."""
    rows = torch.arange(pairs.query.shape[0], device=pairs.query.device)  # (B,)
    in_batch = torch.full_like(rows, -1)  # no document of the batch was given for a row
    if pairs.negative is None:
        given = in_batch
    elif pairs.negative_row is None:
        raise ValueError("pairs.negative_row is None, but there are hard negatives: give it, (K,)")
    else:
        given = torch.cat([in_batch, pairs.negative_row])  # (B + K,)
    return given == rows[:, None]  # (B, B + K)


def first_occurrence(key: Tensor) -> Tensor:
    """True at the first row of every content, (N,): each distinct content counts once."""
    order = key.argsort(stable=True)  # (N,)
    ordered = key[order]  # (N,)
    fresh = torch.ones_like(key, dtype=torch.bool)  # (N,)
    fresh[1:] = ordered[1:] != ordered[:-1]
    return torch.empty_like(fresh).scatter_(0, order, fresh)  # (N,)


def _candidate_keys(pairs: Pairs) -> Tensor:
    if pairs.negative is None:
        return pairs.document_key  # (B,)
    if pairs.negative_key is None:
        raise ValueError("pairs.negative_key is None, but there are hard negatives: give it, (K,)")
    return torch.cat([pairs.document_key, pairs.negative_key])  # (B + K,)


def _group(key: Tensor) -> Tensor:
    """Small integers, equal where the keys are equal; without `unique`'s wait for the device."""
    return torch.searchsorted(key.sort().values, key)  # (N,) in [0, N)


def weighted_mean(values: Tensor, weight: Tensor) -> Tensor:
    """Σ w·v / Σ w; zero with a graph, and with zero gradients, where all weights are zero.

    Args:
        values: any shape.
        weight: same shape, >= 0; booleans count as 0 and 1.
    """
    weight = weight.to(values.dtype)
    return (values * weight).sum() / weight.sum().clamp_min(torch.finfo(values.dtype).tiny)


def mean(values: Tensor) -> Tensor:
    """Plain mean; zero with a graph where there are no values."""
    return values.sum() / max(values.numel(), 1)


def mean_of_rows(values: Tensor, pairs: Pairs, negatives: Tensor) -> Tensor:
    """Mean of a contrastive loss over the rows that count; zero with a graph where there are none.

    All rows count, but with ``pairs.negatives_from`` "given" those that have a negative.

    Args:
        values: (B,).
        pairs: the batch.
        negatives: (B, N) bool, a row's negatives; see `negative_mask`.
    """
    return mean(values) if pairs.in_batch else weighted_mean(values, negatives.any(dim=1))


def list_divergence(teacher: Tensor, student: Tensor, left_out: Tensor) -> Tensor:
    """mean_i KL(P_i ‖ Q_i), P and Q the softmax over row i of what is not left out.

    Args:
        teacher: (N, M) logits of P.
        student: (N, M) logits of Q.
        left_out: (N, M) bool.
    """
    # a large negative number, not −inf: 0 · (−inf − −inf) in the sum below has no value
    least = torch.finfo(student.dtype).min / 4
    goal, ours = (x.masked_fill(left_out, least).log_softmax(dim=1) for x in (teacher, student))
    return mean((goal.exp() * (goal - ours)).sum(dim=1))


def mean_of_sides(side: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]], pairs: Pairs) -> Tensor:
    """Mean of what ``side`` makes of queries and of documents, without those it knows nothing of.

    Args:
        side: embeddings (B, D) and their keys (B,) -> a scalar, and whether it is defined.
        pairs: of one task.
    """
    sides = [side(pairs.query, pairs.query_key), side(pairs.document, pairs.document_key)]
    value, known = (torch.stack(parts) for parts in zip(*sides, strict=True))  # (2,), (2,)
    return weighted_mean(value, known)
