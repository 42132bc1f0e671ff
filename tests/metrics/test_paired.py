"""Statistics over seeds against hand computation and scipy."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from polyqwen.metrics.paired import estimate, holm, paired_difference, relative_gain


def test_interval_by_hand() -> None:
    # s = 2, t_{0.975, 2} = 4.302653, so the half width is 4.302653 · 2 / √3
    found = estimate([2.0, 4.0, 6.0])
    assert found.mean == 4.0 and found.n == 3
    assert found.half == pytest.approx(4.302653 * 2 / math.sqrt(3), rel=1e-6)
    assert (found.low, found.high) == pytest.approx((4.0 - found.half, 4.0 + found.half))


@given(st.lists(st.floats(-1, 1), min_size=2, max_size=8))
def test_interval_is_scipys(values: list[float]) -> None:
    found = estimate(values)
    if (error := float(stats.sem(values))) < 1e-12:
        assert found.half == pytest.approx(0.0, abs=1e-10)
        return
    low, high = stats.t.interval(0.95, len(values) - 1, loc=np.mean(values), scale=error)
    assert (found.low, found.high) == pytest.approx((low, high), abs=1e-12)


def test_one_seed_has_no_interval_and_none_has_nothing() -> None:
    one = estimate([0.5])
    assert one.mean == 0.5 and math.isnan(one.low) and math.isnan(one.high)
    assert math.isnan(estimate([]).mean) and estimate([]).n == 0
    assert math.isnan(estimate([0.5, math.nan]).mean)


def test_paired_t_test_is_scipys_over_the_seeds_of_both() -> None:
    ours = {0: 0.41, 1: 0.44, 2: 0.39, 7: 9.0}
    base = {2: 0.36, 0: 0.37, 1: 0.42, 5: -9.0}
    found = paired_difference(ours, base)
    test = stats.ttest_rel([0.41, 0.44, 0.39], [0.37, 0.42, 0.36])
    interval = test.confidence_interval(0.95)
    assert found.n == 3 and found.mean == pytest.approx(0.03)
    assert found.p == pytest.approx(test.pvalue, rel=1e-12)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))
    assert found.p < stats.ttest_ind([0.41, 0.44, 0.39], [0.37, 0.42, 0.36]).pvalue  # paired


def test_against_zero_it_is_the_one_sample_test() -> None:
    found = paired_difference({0: -0.1, 1: -0.3, 2: -0.2}, None)
    assert found.p == pytest.approx(stats.ttest_1samp([-0.1, -0.3, -0.2], 0.0).pvalue)


def test_degenerate_pairs() -> None:
    single = paired_difference({0: 0.5, 1: 0.6}, {1: 0.5})
    assert single.n == 1 and single.mean == pytest.approx(0.1) and math.isnan(single.p)
    assert paired_difference({0: 0.5}, {1: 0.5}).n == 0
    assert paired_difference({0: 0.5, 1: 0.25}, {0: 0.5, 1: 0.25}).p == 1.0
    assert paired_difference({0: 1.0, 1: 1.0}, {0: 0.5, 1: 0.5}).p == 0.0
    assert math.isnan(paired_difference({0: 1.0, 1: math.nan}, {0: 0.5, 1: 0.5}).p)


def test_holm_by_hand() -> None:
    # sorted .005 .01 .03 .04 times 4 3 2 1 = .02 .03 .06 .04, the last raised to .06
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    adjusted = holm([0.01, math.nan, 0.9])
    assert adjusted[0] == pytest.approx(0.02) and math.isnan(adjusted[1]) and adjusted[2] == 0.9
    assert holm([0.9, 0.8]) == [1.0, 1.0] and holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=9))
def test_holm_never_lowers_keeps_the_order_and_is_at_most_bonferroni(p: list[float]) -> None:
    adjusted = holm(p)
    bound = [min(1.0, len(p) * x) for x in p]
    assert all(x <= a <= b + 1e-15 for x, a, b in zip(p, adjusted, bound, strict=True))
    order = np.argsort(p, kind="stable")
    assert (np.diff(np.array(adjusted)[order]) >= 0).all()


def test_relative_gain_has_the_sign_of_the_gain() -> None:
    assert relative_gain(0.6, 0.5) == pytest.approx(20.0)
    assert relative_gain(-0.1, -0.2) == pytest.approx(50.0)
    assert math.isnan(relative_gain(0.5, 0.0))
