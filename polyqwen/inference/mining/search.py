"""The nearest documents of every query that may serve as its hard negatives, block by block."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from polyqwen.inference.mining.corpus import Corpus
from polyqwen.inference.vectors import nearest


class Rules(NamedTuple):
    """Limits on candidates, as in sentence-transformers' ``mine_hard_negatives``.

    A candidate of cosine c beside a positive of cosine p is taken while

        c < p − margin,   c < p − |p| · relative_margin   and   c ≤ max_cosine

    so that unlabelled positives, which look like the positive, stay out (de Souza Moreira et al.
    2024, arXiv 2407.15831, who favour the relative margin, 0.05).

    Attributes:
        negatives: of each row at most, >= 1.
        margin: >= 0; None for no such limit.
        relative_margin: in [0, 1]; None for no such limit.
        max_cosine: in [-1, 1].
        skip: nearest documents to pass over, >= 0, once the positives are out.
        window: how many of the nearest documents are looked at, > skip.
        min_score: rows of scored tasks below it have no positive and get no negatives, in [0, 1].
    """

    negatives: int = 4
    margin: float | None = 0.05
    relative_margin: float | None = None
    max_cosine: float = 1.0
    skip: int = 0
    window: int = 100
    min_score: float = 0.8

    def check(self) -> "Rules":
        """Itself; ValueError for a number out of range."""
        ranges = {
            "--negatives must be at least 1": self.negatives >= 1,
            "--margin must be >= 0": self.margin is None or self.margin >= 0.0,
            "--relative-margin must lie in [0, 1]": self.relative_margin is None
            or 0.0 <= self.relative_margin <= 1.0,
            "--max-cosine must lie in [-1, 1]": -1.0 <= self.max_cosine <= 1.0,
            "--skip must be >= 0 and below --window": 0 <= self.skip < self.window,
            "--min-score must lie in [0, 1]": 0.0 <= self.min_score <= 1.0,
        }
        for words, holds in ranges.items():
            if not holds:
                raise ValueError(f"{words}; the rules are {self._asdict()}")
        return self

    def taken(
        self, documents: NDArray[np.int64], cosines: NDArray[np.float32], positive: float
    ) -> tuple[list[int], list[float]]:
        """The negatives of one row with their cosines, nearest first.

        Args:
            documents: (W,) numbers, nearest first, positives left out.
            cosines: (W,) with the query.
            positive: cosine of the row's own document.
        """
        near = cosines[self.skip : self.window].astype(np.float64)  # (W − skip,)
        fits = near <= self.max_cosine
        if self.margin is not None:
            fits &= near < positive - self.margin
        if self.relative_margin is not None:
            fits &= near < positive - abs(positive) * self.relative_margin
        chosen = np.flatnonzero(fits)[: self.negatives] + self.skip
        return documents[chosen].tolist(), cosines[chosen].tolist()


HIDDEN = -2.0  # cosine of a document that must not be found


class MinedRow(NamedTuple):
    """What mining keeps of a row beside its vector: a few numbers."""

    query: int  # key of the query
    document: int  # number of the document
    mined: bool  # it gets negatives


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
    queries: NDArray[np.float32], corpus: Corpus, rows: Sequence[MinedRow], rules: Rules, block: int
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
        blocks = _cosines(asked, corpus, [known[row.query] for row in part], block)
        documents, cosines = nearest(blocks, len(part), rules.window)
        for i, row in enumerate(part):
            there = cosines[i] > HIDDEN
            taken: tuple[list[int], list[float]] = ([], [])
            if row.mined:
                taken = rules.taken(documents[i][there], cosines[i][there], float(positives[i]))
            yield Found(*taken, float(positives[i]), row.mined)


def _known(rows: Sequence[MinedRow], corpus: Corpus) -> dict[int, list[int]]:
    """Query -> numbers of the documents that are no negatives of it."""
    known: dict[int, list[int]] = {}
    for row in rows:
        if row.query not in known:
            same = corpus.number(row.query)
            known[row.query] = [] if same is None else [same]
        known[row.query].append(row.document)
    return known


def _cosines(
    asked: NDArray[np.float32], corpus: Corpus, known: Sequence[Sequence[int]], block: int
) -> Iterator[NDArray[np.float32]]:
    """Cosines with each block of documents, (B, ≤ block); `HIDDEN` for known ones."""
    lines = np.concatenate([np.full(len(own), i) for i, own in enumerate(known)])
    hidden = np.concatenate([np.asarray(own, np.int64) for own in known])
    for start, vectors in corpus.blocks(block):
        cosines = asked @ vectors.T
        inside = (hidden >= start) & (hidden < start + len(vectors))
        cosines[lines[inside].astype(int), hidden[inside] - start] = HIDDEN
        yield cosines
