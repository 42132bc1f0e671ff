"""Comparing recipes that were each run with several seeds."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

LEVEL = 0.95  # of all intervals


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds with its 95 % interval; NaN where it cannot be told."""

    mean: float
    low: float
    high: float
    n: int

    @property
    def half(self) -> float:
        """Half the width of the interval."""
        return (self.high - self.low) / 2


@dataclass(frozen=True)
class Difference(Estimate):
    """A mean of paired differences, its 95 % interval, and the p value of the paired t-test."""

    p: float


def estimate(values: Sequence[float]) -> Estimate:
    """Mean over seeds ± t_{0.975, n − 1} · s / √n; with one seed there is no interval.

    Student, 1908, "The probable error of a mean"; s is the standard deviation with n − 1.

    Args:
        values: one per seed; NaN in one (a run that diverged) makes the mean NaN.
    """
    x = np.asarray(values, dtype=np.float64)
    mean = float(x.mean()) if len(x) else math.nan
    if len(x) < 2:
        return Estimate(mean, math.nan, math.nan, len(x))
    from scipy.stats import t as student

    half = float(student.ppf(0.5 + LEVEL / 2, len(x) - 1)) * _standard_error(x)
    return Estimate(mean, mean - half, mean + half, len(x))


def paired_difference(
    values: Mapping[int, float], baseline: Mapping[int, float] | None
) -> Difference:
    """Values minus the baseline's at the same seeds, with a two-sided paired t-test.

    t = d̄ / (s_d / √n) with n − 1 degrees of freedom. Seeds that only one of the two has are left
    out; with fewer than two pairs there is neither interval nor p value.

    Args:
        values: seed -> value.
        baseline: seed -> value; None compares with 0.
    """
    from scipy.stats import t as student

    seeds = [s for s in values if baseline is None or s in baseline]
    zero = dict.fromkeys(seeds, 0.0)
    d = np.array([values[s] - (baseline or zero)[s] for s in seeds], dtype=np.float64)
    found, p = estimate(d.tolist()), math.nan
    if found.n > 1 and not math.isnan(found.mean):
        error = _standard_error(d)
        if error == 0.0:
            p = 1.0 if found.mean == 0.0 else 0.0
        else:
            p = 2.0 * float(student.sf(abs(found.mean) / error, found.n - 1))
    return Difference(found.mean, found.low, found.high, found.n, p)


def holm(p_values: Sequence[float]) -> list[float]:
    """p values adjusted for testing all of them: Holm, 1979, "A simple sequentially rejective …".

    In rising order ``p'_(i) = max_{j ≤ i} min(1, (m − j + 1) · p_(j))``; NaN are no tests: they
    stay NaN and do not count in m.
    """
    tests = [i for i, p in enumerate(p_values) if not math.isnan(p)]
    tests.sort(key=lambda i: p_values[i])
    adjusted = [math.nan] * len(p_values)
    highest = 0.0
    for rank, i in enumerate(tests):
        highest = max(highest, min(1.0, (len(tests) - rank) * p_values[i]))
        adjusted[i] = highest
    return adjusted


def relative_gain(value: float, baseline: float) -> float:
    """Δ = 100 · (value − baseline) / |baseline| in %, of a metric that is better when higher.

    The mean over tasks is the Δ_m of multi-task learning: Maninis, Radosavovic and Kokkinos, 2019,
    "Attentive Single-Tasking of Multiple Tasks", arXiv:1904.08918. NaN for a baseline of 0.
    """
    return math.nan if baseline == 0.0 else 100.0 * (value - baseline) / abs(baseline)


def _standard_error(x: np.ndarray) -> float:
    return float(x.std(ddof=1) / math.sqrt(len(x)))
