"""Effects of swept keys: a dead one, a live one, what single seeds cannot tell, a real sweep."""

import csv
import math
import subprocess
import sys
from collections.abc import Callable, Mapping
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from polyqwen.app.commands.compare import compare
from polyqwen.report.comparison.axes import Axis, build_axes
from polyqwen.report.comparison.tables import axis_lines, axis_sentences
from polyqwen.runs.run_folder import RunFolder
from tests.conftest import ROOT

TASKS = ["text_pair", "ocr"]
NOISE = (0.00, 0.03, -0.02, 0.04, -0.01)  # of each seed
Result = Callable[[Mapping[str, Any], int], tuple[float, float]]


def run(given: Mapping[str, Any], seed: int, text: float, ocr: float) -> RunFolder:
    """A finished run without files, whose command line gave some keys."""
    found = RunFolder(Path(f"r{seed}"), seed=seed)
    found.results = {"trained": {"text_pair": {"spearman": text}, "ocr": {"recall@1": ocr}}}
    found.config = {"run_dir": "r", "seed": seed, "data": {"seed": seed}, **given}
    found.overrides = [*(f"{key}={value}" for key, value in given.items()), f"seed={seed}"]
    return found


def sweep(axes: Mapping[str, list[Any]], result: Result, seeds: int = 4) -> dict[str, Axis]:
    """The axes of a whole grid, by key."""
    settings = [dict(zip(axes, values, strict=True)) for values in product(*axes.values())]
    runs = [run(own, seed, *result(own, seed)) for own in settings for seed in range(seeds)]
    return {axis.key: axis for axis in build_axes(runs, TASKS)}


def grid(own: Mapping[str, Any], seed: int) -> tuple[float, float]:
    """The rate matters, the temperature does nothing, the margin is noise."""
    live = {0.1: 0.0, 0.2: 0.1, 0.3: 0.2}[own["rate"]] * (1 + NOISE[seed])
    noise = 0.02 * math.sin(7 * seed + 31 * own["margin"] + 17 * own["rate"])
    return 0.5 + live + NOISE[seed] + noise, 0.3 + live + NOISE[seed] - noise / 2


AXES = {"rate": [0.1, 0.2, 0.3], "temperature": [0.02, 0.1], "margin": [1, 2]}


def test_a_dead_axis_is_named_beside_a_live_one_and_one_of_noise() -> None:
    found = sweep(AXES, grid)
    assert list(found) == list(AXES)
    dead, live, noisy = found["temperature"], found["rate"], found["margin"]
    assert dead.inert and dead.verdict.startswith("no effect at all")
    assert live.verdict == "exceeds the seed noise" and live.p < 0.001
    assert live.score is not None and (live.score.highest, live.score.lowest) == ("0.3", "0.1")
    assert live.score.difference.low > 0.15 and live.score.difference.high < 0.25
    assert noisy.verdict == "within the seed noise" and not noisy.inert
    assert live.seeds == 4 and live.score.difference.n == 24  # the dead axis repeats runs


def test_single_seeds_tell_equality_alone() -> None:
    found = sweep(AXES, grid, seeds=1)
    assert found["temperature"].verdict.startswith("no effect at all")
    for key in ("rate", "margin"):
        assert found[key].verdict.startswith("cannot be told from seed noise")
        assert math.isnan(found[key].p) and found[key].score is not None
    assert found["rate"].score.difference.mean > 0.1  # type: ignore[union-attr]


def test_equal_to_five_digits_is_equal_and_a_fourth_digit_is_not() -> None:
    def shifted(by: float) -> Result:
        return lambda own, seed: (0.5 + NOISE[seed] + by * own["beta"], 0.3)

    assert sweep({"beta": [0, 1]}, shifted(4e-6))["beta"].inert
    assert not sweep({"beta": [0, 1]}, shifted(1e-4))["beta"].inert


def test_values_that_do_the_same_are_named_where_others_do_not() -> None:
    """Such as a clip that no gradient reaches."""
    found = sweep({"clip": [1, 50, 100]}, lambda own, s: (0.5 + NOISE[s] * min(own["clip"], 2), 1))
    assert found["clip"].equal == (("50", "100"),) and not found["clip"].inert
    assert "50 and 100 give equal results" in found["clip"].verdict


def test_an_effect_that_turns_around_with_another_key_is_one() -> None:
    def turned(own: Mapping[str, Any], seed: int) -> tuple[float, float]:
        value = (
            0.5 + NOISE[seed] + 0.1 * own["a"] * own["b"] + 0.004 * math.sin(9 * seed + own["a"])
        )
        return value, value

    found = sweep({"a": [-1, 1], "b": [-1, 1]}, turned)
    assert found["a"].verdict.endswith("depends on the other keys")


def test_an_effect_on_one_task_that_the_mean_hides_is_named() -> None:
    def traded(own: Mapping[str, Any], seed: int) -> tuple[float, float]:
        gain, noise = 0.1 * own["a"], 0.004 * math.sin(9 * seed + own["a"])
        return 0.5 + NOISE[seed] + gain + noise, 0.5 + NOISE[seed] - gain + noise

    found = sweep({"a": [0, 1]}, traded)["a"]
    assert found.verdict == "exceeds the seed noise on text_pair, ocr, not in the score"


def test_variants_of_a_study_are_axes_at_the_defaults_of_the_others() -> None:
    variants: list[dict[str, Any]] = [{}, {"a": 1}, {"b": 1}, {"weighting": "stw"}]
    runs = [
        run(own, seed, 0.5 + NOISE[seed] + 0.2 * len(own.keys() & {"a"}) * (1 + NOISE[seed]), 0.3)
        for own in variants
        for seed in range(4)
    ]
    found = {axis.key: axis for axis in build_axes(runs, TASKS)}
    assert list(found) == ["a", "b", "weighting"]
    assert found["a"].levels == ("default", "1") and found["a"].p < 0.01
    assert found["b"].inert and found["weighting"].inert


def test_keys_that_change_together_are_one_axis_and_the_seed_is_none() -> None:
    found = sweep({"a": [1, 2]}, lambda own, seed: (0.5 + own["a"] / 10 + NOISE[seed], 0.3))
    runs = [run({"a": i, "b": 2 * i}, s, 0.5 + i / 10, 0.3) for i in (1, 2) for s in (0, 1)]
    assert list(found) == ["a"]
    assert [axis.key for axis in build_axes(runs, TASKS)] == ["a + b"]


def test_a_run_that_diverged_is_left_out_and_one_recipe_has_no_axis() -> None:
    runs = [run({"a": i}, s, math.nan if (i, s) == (1, 0) else 0.5 + NOISE[s], 0.3)
            for i in (1, 2) for s in range(4)]  # fmt: skip
    (axis,) = build_axes(runs, TASKS)
    assert axis.score is not None and axis.score.difference.n == 7 and not axis.inert
    assert build_axes(runs[:4], TASKS) == []


def test_tables_and_lines_say_it() -> None:
    axes = list(sweep(AXES, grid).values())
    headings, lines = axis_lines(axes)
    assert all(len(line) == len(headings) for line in lines)
    by_key = {line[0]: dict(zip(headings, line, strict=True)) for line in lines}
    assert by_key["rate"]["values"] == "0.1, 0.2, 0.3" and by_key["rate"]["p"] == "< .001"
    assert by_key["rate"]["highest, lowest"] == "0.3, 0.1"
    assert by_key["temperature"]["effect"] == "+0.000 ± 0.000"
    said = axis_sentences(axes)
    assert said[0].startswith("rate: +0.197") and "(0.3 against 0.1)" in said[0]
    assert said[1].startswith("temperature: no effect at all")


@pytest.mark.slow
def test_a_real_sweep_finds_the_key_that_nothing_acts_on(
    folder: Path, cache: Path, tmp_path: Path
) -> None:
    """No step is ever bad here, so how many bad ones end a run makes no difference."""
    dead, live = "callbacks.nonfinite.max_bad_steps", "optimizer.head_lr"
    words = [
        *("-m", "experiment=phase1", "data=folder", f"data.root={folder}", f"data_cache={cache}"),
        *("curriculum.total_steps=12", "validate_every=12", "data.rows_per_task=null"),
        *("data.batch_size=8", "logger=csv", "baseline=false", "ablations=[]", "seed=0,1,2"),
        *(f"{dead}=10,11", f"{live}=0.00001,0.01", f"hydra.sweep.dir={tmp_path}"),
    ]
    ended = subprocess.run(
        [sys.executable, "train.py", *words], cwd=ROOT, capture_output=True, text=True, timeout=600
    )
    assert ended.returncode == 0, ended.stderr
    said = [line for line in ended.stdout.splitlines() if line.startswith((dead, live))]
    assert said[0] == f"{dead}: no effect at all: all results are equal, the key may be inert"
    assert said[1].startswith(f"{live}: +") and "no effect at all" not in said[1]
    assert "no effect at all" in (tmp_path / "report.html").read_text()
    compare([tmp_path])
    assert (
        f"| {dead} | 10, 11 | no effect at all"
        in (tmp_path / "leaderboard" / "leaderboard.md").read_text()
    )
    with (tmp_path / "leaderboard" / "axes.csv").open() as file:
        lines = {line["key"]: line for line in csv.DictReader(file)}
    assert lines[dead]["inert"] == "True" and lines[live]["inert"] == "False"
    assert lines[live]["runs"] == "6" and lines[live]["error_degrees"] == "2"
