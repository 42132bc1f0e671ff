"""Is one model better than another on the same rows? A percentile bootstrap of the difference."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from polyqwen.metrics.similarity import spearman


class Interval(NamedTuple):
    """A difference a − b and its 95 % interval; one that excludes 0 is a difference to believe."""

    difference: float
    low: float
    high: float


def _bootstrap(
    difference: Callable[[np.ndarray], float], rows: int, samples: int, seed: int
) -> Interval:
    """The difference over all rows, and its percentiles over rows drawn with replacement."""
    generator = np.random.default_rng(seed)
    drawn = [difference(generator.integers(rows, size=rows)) for _ in range(samples)]
    low, high = np.percentile(drawn, [2.5, 97.5])
    return Interval(float(difference(np.arange(rows))), float(low), float(high))


def _checked(samples: int, *columns: ArrayLike) -> list[np.ndarray]:
    arrays = [np.asarray(column, dtype=np.float64) for column in columns]
    shapes = [array.shape for array in arrays]
    if any(shape != shapes[0] or len(shape) != 1 or not shape[0] for shape in shapes):
        raise ValueError(f"shapes {shapes}: give equally long vectors of the same rows, not empty")
    if samples < 1:
        raise ValueError(f"samples={samples} must be at least 1; 2000 is enough for 95 %")
    return arrays


def paired_bootstrap(a: ArrayLike, b: ArrayLike, samples: int = 2000, seed: int = 0) -> Interval:
    """Mean of a − b over queries with its 95 % percentile interval.

    Queries are resampled with replacement; both models are always judged on the same ones, which
    removes the part of the variance that comes from hard and easy queries. Efron and Tibshirani,
    1993, "An Introduction to the Bootstrap", chapter 13.

    Args:
        a: (Q,) per-query scores of one model, such as reciprocal ranks.
        b: (Q,) per-query scores of the other, same queries in the same order.
        samples: resamples, ≥ 1.
        seed: of the resampling.

    Raises:
        ValueError: vectors differ in length or are empty.
    """
    first, second = _checked(samples, a, b)
    difference = first - second  # (Q,)
    return _bootstrap(lambda rows: difference[rows].mean(), len(difference), samples, seed)


def paired_bootstrap_spearman(
    cosines_a: ArrayLike,
    cosines_b: ArrayLike,
    scores: ArrayLike,
    samples: int = 2000,
    seed: int = 0,
) -> Interval:
    """Difference of two models' Spearman correlations with its 95 % percentile interval.

    Rows are resampled with replacement and both correlations are computed on the same rows. The
    first value is the difference on the rows as given, not the mean of the resamples.

    Args:
        cosines_a: (N,) cosines of one model.
        cosines_b: (N,) cosines of the other.
        scores: (N,) reference scores.
        samples: resamples, ≥ 1.
        seed: of the resampling.

    Raises:
        ValueError: vectors differ in length or are empty.
    """
    first, second, target = _checked(samples, cosines_a, cosines_b, scores)

    def difference(rows: np.ndarray) -> float:
        return spearman(first[rows], target[rows]) - spearman(second[rows], target[rows])

    return _bootstrap(difference, len(target), samples, seed)
