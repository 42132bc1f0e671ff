"""Main effects over seeds against scipy, closed forms and constructed designs."""

import math
from itertools import product

import numpy as np
import pytest
from scipy import stats

from polyqwen.metrics.main_effect import MainEffect, main_effect
from polyqwen.metrics.paired import paired_difference

RNG = np.random.default_rng(7)


def effect(rows: list[tuple[float, object, object, int]]) -> MainEffect:
    values, levels, cells, seeds = zip(*rows, strict=True)
    found = main_effect(values, levels, cells, seeds)
    assert found is not None
    return found


def test_two_levels_over_shared_seeds_are_the_paired_t_test() -> None:
    a, b = {0: 0.41, 1: 0.44, 2: 0.39, 3: 0.47}, {0: 0.40, 1: 0.40, 2: 0.36, 3: 0.45}
    rows = [(v, name, "", s) for name, own in (("a", a), ("b", b)) for s, v in own.items()]
    found, paired = effect(rows), paired_difference(a, b)
    assert (found.highest, found.lowest) == ("a", "b") and found.degrees == (1, 3)
    difference = found.difference
    assert difference.mean == pytest.approx(paired.mean) and difference.n == 8
    assert difference.p == pytest.approx(paired.p)
    assert (difference.low, difference.high) == pytest.approx((paired.low, paired.high))
    assert math.isnan(found.interaction_p)  # there is one cell
    pooled = math.sqrt((np.var(list(a.values()), ddof=1) + np.var(list(b.values()), ddof=1)) / 2)
    assert found.seed_sd == pytest.approx(pooled)


def test_seeds_of_their_own_are_compared_without_pairs() -> None:
    groups = [RNG.normal(size=4), RNG.normal(size=3) + 2.0, RNG.normal(size=5)]
    rows: list[tuple[float, object, object, int]] = [
        (float(v), level, "", 10 * level + s)
        for level, own in enumerate(groups)
        for s, v in enumerate(own)
    ]
    found = effect(rows)
    assert found.degrees == (2, 9)
    assert found.difference.p == pytest.approx(stats.f_oneway(*groups).pvalue)
    tukey = stats.tukey_hsd(*groups)
    high, low = found.highest, found.lowest
    interval = tukey.confidence_interval(0.95)
    assert found.difference.low == pytest.approx(interval.low[high, low], rel=1e-3)
    assert found.difference.high == pytest.approx(interval.high[high, low], rel=1e-3)


def test_a_balanced_design_has_the_sums_of_squares_of_the_textbook() -> None:
    shape = (3, 2, 4)  # levels, cells, seeds
    y = RNG.normal(size=shape) + np.arange(3)[:, None, None] * np.array([1.0, -0.5])[:, None]
    rows = [(float(y[i]), i[0], i[1], i[2]) for i in product(*map(range, shape))]
    found = effect(rows)
    cell = y.mean(2, keepdims=True)
    error = ((y - cell - y.mean(0, keepdims=True) + y.mean((0, 2), keepdims=True)) ** 2).sum()
    level = y.mean((1, 2), keepdims=True)
    main = (np.broadcast_to(level - y.mean(), shape) ** 2).sum()
    both = cell - level - y.mean((0, 2), keepdims=True) + y.mean()
    interaction = (np.broadcast_to(both, shape) ** 2).sum()
    assert found.degrees == (2, 12)
    assert found.difference.p == pytest.approx(stats.f.sf(main / 2 / (error / 12), 2, 12))
    expected = stats.f.sf(interaction / 2 / (error / 12), 2, 12)
    assert found.interaction_p == pytest.approx(expected)
    assert found.seed_sd == pytest.approx(math.sqrt(((y - cell) ** 2).sum() / 18))


def test_without_repeated_seeds_the_size_is_known_and_no_more() -> None:
    found = effect([(0.5, "a", c, 0) for c in range(3)] + [(0.7, "b", c, 0) for c in range(3)])
    assert found.difference.mean == pytest.approx(0.2) and found.degrees == (1, 0)
    assert math.isnan(found.difference.p) and math.isnan(found.difference.low)
    assert math.isnan(found.seed_sd)


def test_equal_results_are_no_effect_and_a_constant_shift_is_one() -> None:
    noise = {s: 0.3 + 0.1 * math.sin(s) for s in range(5)}
    same = effect([(v, level, "", s) for level in "ab" for s, v in noise.items()])
    assert same.difference.p == 1.0 and same.difference.mean == pytest.approx(0.0, abs=1e-12)
    shifted = effect([(v + 0.2 * (x == "b"), x, "", s) for x in "ab" for s, v in noise.items()])
    assert shifted.difference.p == 0.0 and shifted.difference.low == pytest.approx(0.2)
    constant = effect([(0.3, level, "", s) for level in "ab" for s in range(5)])
    assert constant.difference.p == 1.0 and constant.seed_sd == 0.0


def test_levels_that_never_meet_are_not_compared() -> None:
    assert main_effect([0.1, 0.2], ["a", "b"], ["x", "y"], [0, 0]) is None
    # a meets b, c meets d, and the largest step lies between the two pairs
    means = {"a": 0.0, "b": 0.1, "c": 5.0, "d": 5.2}
    rows = [(m + 0.01 * s, x, x in "ab", s) for x, m in means.items() for s in range(3)]
    found = effect(rows)
    assert (found.highest, found.lowest) == ("d", "c") and found.degrees[0] == 2
    assert found.difference.mean == pytest.approx(0.2)


def test_a_run_that_is_missing_does_not_tilt_the_means() -> None:
    # seed 2 is high for everyone and ran with level b alone
    rows = [(base + gain, x, "", s) for s, base in ((0, 0.1), (1, 0.2), (2, 0.9))
            for x, gain in (("a", 0.0), ("b", 0.05)) if (s, x) != (2, "a")]  # fmt: skip
    found = effect(rows)
    assert found.difference.mean == pytest.approx(0.05)


def test_a_dead_factor_is_found_alive_as_often_as_the_level_says() -> None:
    found = []
    for _ in range(400):
        seeds = RNG.normal(size=4)
        y = seeds + RNG.normal(size=(3, 2, 4))
        rows = [(float(y[i]), i[0], i[1], i[2]) for i in product(range(3), range(2), range(4))]
        found.append(effect(rows))
    rejected = np.mean([one.difference.p < 0.05 for one in found])
    covered = np.mean([one.difference.low <= 0.0 for one in found])
    assert 0.02 < rejected < 0.09 and 0.91 < covered < 0.98
