"""Main effect of one factor of a designed experiment, against the noise of the seed."""

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from polyqwen.metrics.paired import LEVEL, Difference

NEGLIGIBLE = 1e-20  # a residual sum of squares below this part of Σ y² is rounding


@dataclass(frozen=True)
class MainEffect:
    """What a factor's levels do to a result, all else being equal.

    Attributes:
        highest: level with the highest adjusted mean.
        lowest: level with the lowest.
        difference: of these two adjusted means; the 95 % interval is simultaneous over all pairs
            of levels (Tukey-Kramer), ``n`` counts the runs, ``p`` is that of the F test of all
            levels. NaN for what cannot be told.
        interaction_p: of the F test that the effect is the same in all cells; NaN with one cell.
        seed_sd: standard deviation over seeds within a cell and level; NaN without repeated seeds.
        degrees: of freedom of the F test: of the levels, of the error. With 0 of the error no seed
            is repeated, and the effect cannot be told from noise.
    """

    highest: Hashable
    lowest: Hashable
    difference: Difference
    interaction_p: float
    seed_sd: float
    degrees: tuple[int, int]


def main_effect(
    values: Sequence[float],
    levels: Sequence[Hashable],
    cells: Sequence[Hashable],
    seeds: Sequence[int],
) -> MainEffect | None:
    """Analysis of variance with seeds as blocks, for complete and incomplete designs.

    Three nested linear models are fitted by least squares: ``y ~ block``, ``+ level`` and ``+ level
    × cell``. A block is a cell and a seed, so that runs of the same seed are compared with each
    other (levels that never share a seed are compared within the cell). With residual sums of
    squares R₀, R₁, R₂ and ranks k₀, k₁, k₂ of n runs, the error is s² = R₂ / (n − k₂): what levels
    do differently from seed to seed. The level's ``F = (R₀ − R₁) / (k₁ − k₀) / s²``, the
    interaction's ``F = (R₁ − R₂) / (k₂ − k₁) / s²`` (Fisher, 1925). Two levels with one cell give
    the paired t-test.

    Args:
        values: the result of each run, finite.
        levels: the factor's level in each run.
        cells: all other settings of each run: levels are compared at equal ones.
        seeds: of the runs.

    Returns:
        None where no two levels meet at equal other settings.
    """
    y = np.asarray(values, dtype=np.float64) - np.mean(values)
    names, level = _coded(levels)
    blocks = _blocks(level, cells, seeds)
    if blocks is None:
        return None
    base, factor = _dummies(blocks), _dummies(level)
    full = _dummies(_coded(list(zip(cells, level.tolist(), strict=True)))[1])
    rounding = NEGLIGIBLE * float(np.square(values).sum())
    designs = (base, np.hstack([base, factor]), np.hstack([base, full]))
    fits = [_fit(x, y, rounding) for x in designs]
    (rss_0, rank_0), (rss_1, rank_1), (rss_2, rank_2) = fits
    degrees = (rank_1 - rank_0, len(y) - rank_2)
    p = _f_test(rss_0 - rss_1, degrees[0], rss_2, degrees[1])
    interaction = _f_test(rss_1 - rss_2, rank_2 - rank_1, rss_2, degrees[1])
    high, low, mean, leverage = _extremes(base, factor, y)
    half = math.nan
    if degrees[1]:
        error = math.sqrt(rss_2 / degrees[1] * leverage)
        half = _critical_range(len(names), degrees[1]) * error
    within, rank = _fit(full, y, rounding)
    seed_sd = math.sqrt(within / (len(y) - rank)) if len(y) > rank else math.nan
    difference = Difference(mean, mean - half, mean + half, len(y), p)
    return MainEffect(names[high], names[low], difference, interaction, seed_sd, degrees)


def _blocks(
    level: np.ndarray, cells: Sequence[Hashable], seeds: Sequence[int]
) -> np.ndarray | None:
    """Cell and seed of each run; the cell alone where no two levels share a seed."""
    for keys in (list(zip(cells, seeds, strict=True)), list(cells)):
        blocks = _coded(keys)[1]
        if any(len(set(level[blocks == b].tolist())) > 1 for b in range(blocks.max() + 1)):
            return blocks
    return None


def _coded(labels: Sequence[Hashable]) -> tuple[list[Hashable], np.ndarray]:
    """Different labels in order of first sight, and the place of each label among them."""
    names = list(dict.fromkeys(labels))
    places = {name: place for place, name in enumerate(names)}
    return names, np.array([places[label] for label in labels])


def _dummies(codes: np.ndarray) -> np.ndarray:
    return np.eye(codes.max() + 1)[codes]


def _fit(x: np.ndarray, y: np.ndarray, rounding: float) -> tuple[float, int]:
    """Residual sum of squares, 0 up to ``rounding``, and the rank of the model."""
    solution, _, rank, _ = np.linalg.lstsq(x, y, rcond=None)
    rss = float(np.square(y - x @ solution).sum())
    return (0.0 if rss <= rounding else rss), int(rank)


def _f_test(explained: float, degrees: int, rss: float, error_degrees: int) -> float:
    if not degrees or not error_degrees:
        return math.nan
    if rss == 0.0:  # the same difference with every seed: equal results, or no noise at all
        return 1.0 if explained <= 0.0 else 0.0
    from scipy.stats import f as fisher

    ratio = max(0.0, explained) / degrees / (rss / error_degrees)
    return float(fisher.sf(ratio, degrees, error_degrees))


def _extremes(base: np.ndarray, factor: np.ndarray, y: np.ndarray) -> tuple[int, int, float, float]:
    """Levels of the highest and the lowest adjusted mean that can be compared.

    Returns:
        The two levels, their difference, and its variance in units of the error's.
    """
    z = factor - base @ np.linalg.lstsq(base, factor, rcond=None)[0]  # within blocks
    information = z.T @ z
    inverse = np.linalg.pinv(information, rcond=1e-10)
    effects = inverse @ z.T @ y
    known = inverse @ information  # projects on the contrasts that the design can tell
    best = (0, 0, -math.inf, 0.0)
    for i in range(len(effects)):
        for j in range(len(effects)):
            contrast = np.zeros(len(effects))
            contrast[i], contrast[j] = 1.0, -1.0
            told = i != j and np.allclose(known @ contrast, contrast, atol=1e-8)
            if told and effects[i] - effects[j] > best[2]:
                spread = float(contrast @ inverse @ contrast)
                best = (i, j, float(effects[i] - effects[j]), spread)
    return best


def _critical_range(levels: int, degrees: int) -> float:
    """q / √2 of the studentized range: Tukey, 1949; Kramer, 1956; of two levels Student's t."""
    from scipy.stats import studentized_range, t

    if levels == 2:
        return float(t.ppf(0.5 + LEVEL / 2, degrees))
    return float(studentized_range.ppf(LEVEL, levels, degrees)) / math.sqrt(2.0)
