"""The nearest documents of every query, block by block."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from polyqwen.inference.mining.corpus import Corpus
from polyqwen.inference.mining.rules import Rules

HIDDEN = -2.0  # cosine of a document that must not be found


class Asked(Protocol):
    """A row as the search reads it."""

    @property
    def query(self) -> int:
        """Key of the query's content."""

    @property
    def document(self) -> int:
        """Number of the row's document."""

    @property
    def mined(self) -> bool:
        """It gets negatives."""


class Found(NamedTuple):
    """The negatives of one row, nearest first.

    Attributes:
        documents: their numbers.
        cosines: with the query.
        positive: cosine of the row's own document.
        mined: False for a row that has no positive.
    """

    documents: list[int]
    cosines: list[float]
    positive: float
    mined: bool


def search(
    queries: NDArray[np.float32], corpus: Corpus, rows: Sequence[Asked], rules: Rules, block: int
) -> Iterator[Found]:
    """What the rules take of each query's nearest documents, in the order of the rows.

    Never among them: the documents of any row with the same query, and a document that is the
    query's own text.

    Args:
        queries: (N, D) unit norm, perhaps in a file.
        corpus: documents, unit norm.
        rows: N rows.
        rules: see `Rules`.
        block: queries and documents compared at a time, >= 1; block² cosines are in memory.
    """
    known = _known(rows, corpus)
    for start in range(0, len(rows), block):
        part = rows[start : start + block]
        asked = np.asarray(queries[start : start + block])
        own = corpus.vectors()[[row.document for row in part]]  # (B, D)
        positives = (asked * own).sum(axis=1)
        documents, cosines = _nearest(asked, corpus, [known[r.query] for r in part], rules, block)
        for i, row in enumerate(part):
            there = cosines[i] > HIDDEN
            taken: tuple[list[int], list[float]] = ([], [])
            if row.mined:
                taken = rules.taken(documents[i][there], cosines[i][there], float(positives[i]))
            yield Found(*taken, float(positives[i]), row.mined)


def _known(rows: Sequence[Asked], corpus: Corpus) -> dict[int, list[int]]:
    """Query -> numbers of the documents that are no negatives of it."""
    known: dict[int, list[int]] = {}
    for row in rows:
        if row.query not in known:
            same = corpus.number(row.query)
            known[row.query] = [] if same is None else [same]
        known[row.query].append(row.document)
    return known


def _nearest(
    asked: NDArray[np.float32],
    corpus: Corpus,
    known: Sequence[Sequence[int]],
    rules: Rules,
    block: int,
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Numbers and cosines of the ``rules.window`` nearest documents, (B, W), nearest first."""
    count = len(asked)
    best = np.full((count, 0), HIDDEN, np.float32)
    numbers = np.zeros((count, 0), np.int64)
    lines = np.concatenate([np.full(len(own), i) for i, own in enumerate(known)])
    hidden = np.concatenate([np.asarray(own, np.int64) for own in known])
    for start, vectors in corpus.blocks(block):
        cosines = asked @ vectors.T  # (B, block)
        inside = (hidden >= start) & (hidden < start + len(vectors))
        cosines[lines[inside].astype(int), hidden[inside] - start] = HIDDEN
        own = np.broadcast_to(np.arange(start, start + len(vectors)), cosines.shape)
        best, numbers = np.hstack([best, cosines]), np.hstack([numbers, own])
        if best.shape[1] > rules.window:
            # equal cosines: the document that came first
            order = np.argsort(-best, axis=1, kind="stable")[:, : rules.window]
            best = np.take_along_axis(best, order, axis=1)
            numbers = np.take_along_axis(numbers, order, axis=1)
    order = np.argsort(-best, axis=1, kind="stable")
    return np.take_along_axis(numbers, order, axis=1), np.take_along_axis(best, order, axis=1)
