"""The page of what the studies can tell is what the committed runs give."""

import math

import numpy as np
import pytest
from scipy.stats import t, ttest_rel

from tools.study_statistics import (
    PAGE,
    STUDIES,
    at_equal_time,
    detectable,
    gate,
    page,
    scores,
    spread_of_differences,
)


def test_the_page_is_made_of_the_committed_runs() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "run: python -m tools.study_statistics"


@pytest.mark.parametrize(("seeds", "tests"), [(3, 1), (5, 23)])
def test_a_difference_of_that_size_is_found_four_times_in_five(seeds: int, tests: int) -> None:
    spread = 0.01
    rng = np.random.default_rng(3)
    d = detectable(spread, seeds, tests) + spread * rng.normal(size=(20_000, seeds))
    statistic = d.mean(1) / d.std(1, ddof=1) * math.sqrt(seeds)
    found = np.mean(np.abs(statistic) > t.ppf(1 - 0.025 / tests, seeds - 1))
    assert found == pytest.approx(0.8, abs=0.015)


def test_the_spread_is_pooled_over_variants() -> None:
    runs = {"base": {0: 0.0, 1: 0.0}, "a": {0: 0.1, 1: 0.3}, "b": {0: 0.5, 1: 0.5}}
    assert spread_of_differences(runs, "base") == pytest.approx(math.sqrt(0.02 / 2))


def test_equal_time_and_the_gate_are_paired_over_shared_seeds() -> None:
    own = scores(STUDIES / "measured" / "own_loss_352_steps.csv")["own"]
    theirs = scores(STUDIES / "misleading_real" / "runs.csv")["exp_gradient"]
    found = {name: difference for name, _, difference in at_equal_time()}["exp_gradient"]
    expected = ttest_rel([own[s] for s in range(6)], [theirs[s] for s in range(6)])
    assert found.n == 6 and found.p == pytest.approx(expected.pvalue)
    assert gate().p == pytest.approx(ttest_rel([0.630, 0.618], [0.599, 0.603]).pvalue)
