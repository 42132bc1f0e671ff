"""What the committed studies could have found: python -m tools.study_statistics.

Writes ``docs/studies/statistics.md`` from the runs of the studies and from
``docs/studies/measured``; a test compares the page with what this makes.
"""

import csv
import math
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from scipy.optimize import brentq
from scipy.stats import nct, t

from polyqwen.metrics.paired import Difference, paired_difference
from polyqwen.report.format_values import markdown_table

STUDIES = Path(__file__).parents[1] / "docs" / "studies"
PAGE = STUDIES / "statistics.md"
POWER, LEVEL = 0.8, 0.05
SEEDS = (2, 3, 5, 8, 10)
BASELINES = {"weighting": "static", "claims": "base"}
TITLES = {"weighting": "strategies", "claims": "claims of the paper"}
Scores = dict[str, dict[int, float]]  # variant -> seed -> score


def scores(path: Path, name: str = "variant", value: str = "score") -> Scores:
    """The runs of a CSV by variant and seed."""
    found: Scores = defaultdict(dict)
    with path.open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            found[row[name]][int(row["seed"])] = float(row[value])
    return dict(found)


def spread_of_differences(runs: Scores, baseline: str) -> float:
    """Standard deviation of paired differences to the baseline, pooled over the variants."""
    others = [own for name, own in runs.items() if name != baseline]
    squares, degrees = 0.0, 0
    for own in others:
        d = np.array([own[s] - runs[baseline][s] for s in own if s in runs[baseline]])
        squares += float(np.square(d - d.mean()).sum())
        degrees += len(d) - 1
    return math.sqrt(squares / degrees)


def detectable(spread: float, seeds: int, tests: int = 1) -> float:
    """The difference that a paired two-sided t-test finds with 80 % power.

    With n seeds the statistic is noncentral t with n − 1 degrees of freedom and noncentrality
    √n · Δ / s. Several tests: the first step of Holm, level .05 / tests.

    Args:
        spread: s, standard deviation of the paired differences.
        seeds: n >= 2.
        tests: hypotheses that are adjusted for.
    """
    degrees = seeds - 1
    critical = float(t.ppf(1 - LEVEL / tests / 2, degrees))
    found = brentq(lambda shift: nct.sf(critical, degrees, shift) - POWER, 0.0, 100 * critical)
    return float(found) * spread / math.sqrt(seeds)


def power_lines(name: str) -> tuple[float, int, list[list[str]]]:
    """Spread, number of comparisons, and a line for each number of seeds."""
    runs = scores(STUDIES / name / "runs.csv")
    spread, tests = spread_of_differences(runs, BASELINES[name]), len(runs) - 1
    lines = [
        [str(n), f"{detectable(spread, n):.3f}", f"{detectable(spread, n, tests):.3f}"]
        for n in SEEDS
    ]
    return spread, tests, lines


def at_equal_time() -> Iterator[tuple[str, float, Difference]]:
    """Strategies after 200 steps, and the own loss alone after 352 steps minus them."""
    own = scores(STUDIES / "measured" / "own_loss_352_steps.csv")["own"]
    runs = scores(STUDIES / "misleading_real" / "runs.csv")
    for name in ("own", "exp_gradient", "nnls_match", "lossrag"):
        theirs = {seed: runs[name][seed] for seed in own}
        yield name, float(np.mean(list(theirs.values()))), paired_difference(own, theirs)


def gate() -> Difference:
    """Spearman with pairs weighed by score minus Spearman with a threshold."""
    runs = scores(STUDIES / "measured" / "score_gate.csv", "score_gate", "spearman")
    return paired_difference(runs["weight"], runs["threshold"])


def frozen_lines() -> list[list[str]]:
    """Macro-F1 by arm and task."""
    with (STUDIES / "measured" / "frozen_text_encoder.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    arms: dict[str, list[str]] = defaultdict(list)
    for row in rows:
        arms[row["arm"]].append(row["macro_f1"])
    return [[arm, *values] for arm, values in arms.items()]


def _signed(difference: Difference) -> str:
    return f"{difference.mean:+.4f} ± {difference.half:.4f}"


def page() -> str:
    """The whole page."""
    parts = [INTRODUCTION]
    for name in BASELINES:
        spread, tests, lines = power_lines(name)
        parts.append(f"### study={name}\n\n{POWER_TEXT.format(spread=spread, title=TITLES[name])}")
        headings = ["seeds", "one test planned ahead", f"Holm over {tests}"]
        parts.append(markdown_table(headings, lines))
    parts.append(EQUAL_TIME)
    lines = [[f"`{n}`", f"{m:.4f}", _signed(d), f"{d.p:.4f}"] for n, m, d in at_equal_time()]
    headings = ["against, 200 steps", "its mean", "own loss, 352 steps, minus it", "p"]
    parts.append(markdown_table(headings, lines))
    parts.append(GATE.format(difference=_signed(gate()), p=gate().p))
    parts.append(FROZEN)
    parts.append(
        markdown_table(["", "`sentiment5`", "`question_type`", "`intent`"], frozen_lines())
    )
    return "\n\n".join(part.strip("\n") for part in parts) + "\n"


INTRODUCTION = """
# What the studies can tell, and what not

Made by `python -m tools.study_statistics` from the runs of the studies (`runs.csv`) and from what
was measured beside them ([measured/](measured/own_loss_352_steps.csv), with hardware, date and
command in each line).

## Differences that could have been found

With 80 % power, by a paired two-sided t-test at .05, given the standard deviation of paired
differences that the study's own runs have: the difference of scores (between 0 and 1) that must
truly be there. *Holm*: the first of its steps, adjusted for all comparisons of the study.
"""
POWER_TEXT = "Standard deviation of a paired difference {spread:.4f} ({title}, two seeds)."
EQUAL_TIME = """
So with two seeds and all comparisons corrected for, nothing could have been found in either
study, whatever is true: their tables describe, they do not decide.

## Own loss at equal time

On real text pairs a step of `exp_gradient` takes 1.76 times as long as one of the own loss alone
([study](misleading_real/leaderboard.md)). The own loss for 352 steps, which take as long as 200
of `exp_gradient`, against the strategies of the study after 200 steps; seeds 0 to 5, paired, p
not adjusted; 28 November 2026:
"""
GATE = """
What the strategies gain in 200 steps, the own loss gains in the same time; the lead of `lossrag`
over `own` is gone too.

## Pairs weighed by their scores

`score_gate=weight` minus `score_gate=threshold` on real text pairs, 800 steps, two seeds
([runs](measured/score_gate.csv)): Spearman {difference}, paired t-test p {p:.2f}. A direction, no
finding.
"""
FROZEN = """
## A frozen encoder beside trained ones

Macro-F1 on 400 test rows of SST-5, TREC and SNIPS (English, 1,500 training rows each),
all-MiniLM-L6-v2, one seed, 28 November 2026 ([lines](measured/frozen_text_encoder.csv)). *Frozen
encoder + LR*: logistic regression on the vectors of the encoder as published, which costs one
pass over the rows. The higher rates were the first and only ones tried.
"""


def main() -> None:
    """Writes the page."""
    PAGE.write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
