"""Which documents may serve as hard negatives of a query."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


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
