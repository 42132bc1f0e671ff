"""How tasks share steps: by size, in turn, by how they fare, switched on, from easy to hard."""

from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polyqwen.build.run import build
from polyqwen.data.sampling.curriculum import Curriculum, staged
from polyqwen.data.sampling.permutation import PassOrder, easy_first
from polyqwen.data.sampling.sampler import StepSampler
from polyqwen.data.sampling.shares import (
    AdaptiveSampling,
    BySize,
    RandomTask,
    RoundRobin,
    Sampling,
)
from tests.conftest import Configure

ROWS = {"a": 900, "b": 100, "c": 400}


def steps(sampling: Sampling, shares: dict[str, float] | None = None, **more: Any) -> StepSampler:
    tasks = shares or dict.fromkeys(ROWS, 1.0)
    curriculum = Curriculum(tasks, [{"steps": 120}])
    batch_rows = more.pop("batch_rows", None)
    rows = {task: ROWS[task] for task in tasks}
    return StepSampler(rows, curriculum, 20, 0, batch_rows, sampling, **more)


@pytest.mark.parametrize(
    ("tau", "expected"), [(0.0, [1, 1, 1]), (0.5, [3, 1, 2]), (1.0, [9, 1, 4])]
)
def test_by_size(tau: float, expected: list[int]) -> None:
    table = BySize(tau).table(np.full((2, 3), 1 / 3), np.array(list(ROWS.values())))
    assert table == pytest.approx(np.tile(np.array(expected) / sum(expected), (2, 1)))
    drawn = steps(BySize(tau)).quotas.sum(axis=0) / 2400
    assert drawn == pytest.approx(np.array(expected) / sum(expected), abs=0.002)


def test_by_size_keeps_shares_as_factors() -> None:
    table = BySize(1.0).table(np.array([[0.5, 0.5, 0.0]]), np.array([900, 100, 400]))
    assert table == pytest.approx(np.array([[0.9, 0.1, 0.0]]))


def test_round_robin_takes_one_task_a_step() -> None:
    sampler = steps(RoundRobin())
    for step in range(9):
        assert list(sampler.rows_of_step(step)) == ["abc"[step % 3]]
        assert sampler.quotas[step].sum() == 20


def test_round_robin_with_a_batch_size_of_each_task() -> None:
    sampler = steps(RoundRobin(), batch_rows={"a": 5, "b": 7, "c": 9})
    assert sampler.quotas[:4].tolist() == [[5, 0, 0], [0, 7, 0], [0, 0, 9], [5, 0, 0]]


def test_round_robin_passes_over_tasks_that_are_off() -> None:
    curriculum = staged({"a": 1.0, "b": 1.0}, starts={"b": 4}, total_steps=8)
    table = RoundRobin().table(curriculum.share_table(0, 8), np.array([5, 5]))
    assert table.argmax(axis=1).tolist() == [0, 0, 0, 0, 0, 1, 0, 1]


def test_a_random_task_takes_the_whole_step_as_often_as_its_share_says() -> None:
    shares = np.tile([0.5, 0.0, 0.2, 0.3], (20_000, 1))
    table = RandomTask(3).table(shares, np.ones(4, dtype=np.int64))
    assert (table.sum(axis=1) == 1.0).all() and set(np.unique(table)) == {0.0, 1.0}
    assert table.mean(axis=0) == pytest.approx([0.5, 0.0, 0.2, 0.3], abs=0.01)
    after = table[1:][table[:-1, 0] == 1.0]  # independent of the step before
    assert after.mean(axis=0) == pytest.approx([0.5, 0.0, 0.2, 0.3], abs=0.02)


def test_what_is_drawn_follows_from_seed_and_step_alone() -> None:
    shares, rows = np.full((60, 3), 1 / 3), np.array([9, 9, 9])
    whole = RandomTask(0).table(shares, rows)
    assert np.array_equal(RandomTask(0).table(shares[:20], rows), whole[:20])
    assert not np.array_equal(RandomTask(1).table(shares, rows), whole)
    late = shares.copy()
    late[:30, 2] = 0.0  # a task that is not on yet: later steps stay as they are
    table = RandomTask(0).table(late, rows)
    assert np.array_equal(table[30:], whole[30:]) and not table[:30, 2].any()
    names = ["abc"[task] for task in whole.argmax(axis=1)[:12]]
    assert "".join(names) == "baaaccbcbcca"  # .637, .270, .041, .017, .813, …, as ever


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 2**32), st.lists(st.floats(0.0, 1.0), min_size=3, max_size=3).filter(sum))
def test_random_tasks_never_repeat_a_row_inside_a_step(seed: int, shares: list[float]) -> None:
    sampler = steps(RandomTask(seed), dict(zip(ROWS, shares, strict=True)), batch_rows={"b": 7})
    for step in range(120):
        rows = sampler.rows_of_step(step)
        ((task, drawn),) = rows.items()
        assert shares["abc".index(task)] > 0.0
        assert len(set(drawn.tolist())) == len(drawn) == (7 if task == "b" else 20)


def test_adaptive_factors_by_hand() -> None:
    sampling = AdaptiveSampling(window=10, bounds=(0.5, 2.0))
    shares = np.full((50, 3), 1 / 3)
    rows = np.array([1, 1, 1])
    assert sampling.decide(10, [3.0, 1.0, float("nan")]) == [1.5, 0.5, 1.0]
    table = sampling.table(shares, rows)
    assert table[:20] == pytest.approx(shares[:20])  # window 1 was fetched already
    assert table[20:] == pytest.approx(np.tile([0.5, 1 / 6, 1 / 3], (30, 1)))
    sampling.decide(20, [float("nan")] * 3)  # nothing measured: as before
    assert sampling.table(shares, rows) == pytest.approx(table)
    assert sampling.decide(30, [0.1, 9.0, 0.5])[1] == 2.0  # bounded
    with pytest.raises(ValueError, match="does not end a window"):
        sampling.decide(31, [1.0] * 3)


def test_a_decision_leaves_earlier_steps_as_they_are() -> None:
    sampling = AdaptiveSampling(window=10)
    sampler = steps(sampling)
    before = [sampler.rows_of_step(step) for step in range(120)]
    sampling.decide(10, [4.0, 1.0, 1.0])
    sampler.refresh()
    after = [sampler.rows_of_step(step) for step in range(120)]
    same = [
        all(np.array_equal(x[t], y[t]) for t in ROWS) for x, y in zip(before, after, strict=True)
    ]
    assert all(same[:20]) and not any(same[20:])
    assert sampler.quotas[20:, 0].sum() > 1.4 * sampler.quotas[20:, 2].sum()


@settings(deadline=None, max_examples=50)
@given(
    st.lists(st.lists(st.floats(0.01, 50.0), min_size=3, max_size=3), min_size=1, max_size=8),
    st.sampled_from([None, {"b": 3}]),
)
def test_adaptive_streams_never_repeat_a_row_inside_a_step(
    values: list[list[float]], fixed: dict[str, int] | None
) -> None:
    sampling = AdaptiveSampling(window=10)
    sampler = steps(sampling, batch_rows=fixed)
    guards = {task: order.guard for task, order in sampler._orders.items()}
    for window, value in enumerate(values, start=1):
        sampling.decide(10 * window, value)
    sampler.refresh()
    for task, most in zip(sampler.tasks, sampler.quotas.max(axis=0).tolist(), strict=True):
        assert most <= guards[task]
    for step in range(0, 120, 7):
        for rows in sampler.rows_of_step(step).values():
            assert len(set(rows.tolist())) == len(rows)


def test_state_goes_on() -> None:
    first, second = AdaptiveSampling(window=10), AdaptiveSampling(window=10)
    first.decide(10, [3.0, 1.0, 1.0])
    second.load_state_dict(first.state_dict())
    for sampling in (first, second):
        sampling.decide(20, [1.0, 1.0, 4.0])
    assert np.array_equal(steps(first).quotas, steps(second).quotas)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"signal": "hope"}, "signal"),
        ({"window": 0}, "window"),
        ({"power": -1.0}, "power"),
        ({"bounds": (1.5, 2.0)}, "bounds"),
    ],
)
def test_adaptive_refuses(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        AdaptiveSampling(**options)


def test_tau_and_seed_below_zero_are_refused() -> None:
    with pytest.raises(ValueError, match="tau"):
        BySize(-1.0)
    with pytest.raises(ValueError, match="seed"):
        RandomTask(-1)


def test_tasks_are_switched_on_at_their_steps() -> None:
    tasks = {"a": 1.0, "b": 1.0, "c": 2.0}
    curriculum = staged(tasks, starts={"b": 4, "c": 8}, total_steps=12, ramp_steps=2)
    assert curriculum.shares(3).tolist() == [1.0, 0.0, 0.0]
    assert curriculum.shares(4).tolist() == [1.0, 0.0, 0.0]  # the ramp begins
    assert curriculum.shares(7).tolist() == [0.5, 0.5, 0.0]
    assert curriculum.shares(11).tolist() == [0.25, 0.25, 0.5]
    assert [phase.name for phase in curriculum.phases] == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"starts": {"d": 1}}, r"name \['d'\]"),
        ({"starts": {"a": 12}}, r"starts\.a"),
        ({"starts": {"a": 1, "b": 2}}, "no task for step 0"),
        ({"starts": {"a": 3}, "switch_step": 2}, "switch_step"),
    ],
)
def test_staged_refuses(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        staged({"a": 1.0, "b": 1.0}, total_steps=12, **options)


def test_the_first_pass_goes_from_easy_to_hard() -> None:
    difficulty = np.random.default_rng(0).integers(0, 50, 300).astype(np.float64)
    first = easy_first(difficulty, 0, "a")
    order = PassOrder(300, 0, "a", 40, first)
    stream = order.rows_at(np.arange(900)).reshape(3, 300)
    assert (np.diff(difficulty[stream[0]]) >= 0).all()
    for number in (1, 2):
        assert sorted(stream[number]) == list(range(300))
        assert (np.diff(difficulty[stream[number]]) < 0).any()
    whole = stream.flatten()
    for start in range(900 - 40):
        assert len(set(whole[start : start + 40].tolist())) == 40
    other = easy_first(difficulty, 1, "a")
    assert np.array_equal(difficulty[other], difficulty[first]) and (other != first).any()


def data_for(configure: Configure, *overrides: str, **trainer: Any) -> Any:
    texts = ["model=tiny_text", "task=[sentiment,topic,intent]", "curriculum=single_phase"]
    options = [*texts, "curriculum.total_steps=12", "data.rows_per_task=null", "data.batch_size=12"]
    data = build(configure(*options, *overrides)).data
    given = {"world_size": 1, "global_rank": 0, "accumulate_grad_batches": 1, "global_step": 0}
    data.trainer = SimpleNamespace(max_steps=-1, **{**given, **trainer})
    return data


def drawn(data: Any) -> list[Counter[str]]:
    loader = data.train_dataloader()
    return [Counter(task for task, _ in batch) for batch in loader.batch_sampler]


def test_the_configuration_reaches_the_sampler(configure: Configure) -> None:
    in_turn = drawn(data_for(configure, "data/sampling=round_robin"))
    assert [dict(step) for step in in_turn[:3]] == [
        {"sentiment": 12},
        {"topic": 12},
        {"intent": 12},
    ]
    random = drawn(data_for(configure, "data/sampling=random_task", "seed=5"))
    assert all(len(step) == 1 and sum(step.values()) == 12 for step in random)
    assert random != drawn(data_for(configure, "data/sampling=random_task", "seed=6"))
    sizes = drawn(data_for(configure, "data/sampling=by_size", "data.sampling.tau=2.0"))
    total = sum(sizes, Counter())
    assert total["sentiment"] > total["topic"] and total["sentiment"] > total["intent"]
    on = drawn(data_for(configure, "curriculum=staged", "curriculum.starts={topic:6}"))
    assert all(("topic" in step) is (number >= 6) for number, step in enumerate(on))


def test_easy_rows_come_first(configure: Configure) -> None:
    data = data_for(configure, "tasks.intent.easy_first=true", "tasks.intent.batch_size=2")
    addresses = [address for batch in data.train_dataloader().batch_sampler for address in batch]
    rows = [row for task, row in addresses if task == "intent"]
    table = data.splits.table("intent", "train")
    costs = np.asarray(table["cost"])[rows[: len(table)]]
    assert len(costs) > 8 and (np.diff(costs) >= 0).all() and costs[0] < costs[-1]


def test_a_window_must_be_longer_than_what_is_fetched(configure: Configure) -> None:
    options = (
        "data/sampling=by_loss",
        "data.sampling.window=4",
        "data.num_workers=2",
        "data.batch_size=6",
    )
    with pytest.raises(ValueError, match="shorter than the 6 steps"):
        data_for(configure, *options).train_dataloader()
    data_for(configure, *options, accumulate_grad_batches=2).train_dataloader()


def test_a_run_of_random_tasks_resumes_exactly(configure: Configure, tmp_path: Path) -> None:
    from tests.training.test_resume import assert_same, fit

    through = fit(configure, tmp_path / "a", "data/sampling=random_task")
    assert all(len(step) == 1 for step in through.rows.values())
    for step in (3, 5):
        ckpt = tmp_path / "a" / f"{step}.ckpt"
        resumed = fit(configure, tmp_path / f"b{step}", "data/sampling=random_task", ckpt=ckpt)
        assert_same(resumed, through, step)


def test_an_adaptive_run_resumes_exactly(configure: Configure, tmp_path: Path) -> None:
    from tests.training.test_resume import assert_same, fit

    options = [
        "model=tiny_text",
        "task=[sentiment,topic,intent]",
        "curriculum=single_phase",
        "weighting=static",
        "data/sampling=by_loss",
        "data.sampling.window=2",
        "data.rows_per_task=null",
        "data.batch_size=12",
    ]
    through = fit(configure, tmp_path / "a", *options, weighting=())
    sizes = [Counter({t: len(r) for t, r in step}) for step in through.rows.values()]
    assert sizes[0] != sizes[-1]
    for step in (3, 4, 5):
        ckpt = tmp_path / "a" / f"{step}.ckpt"
        resumed = fit(configure, tmp_path / f"b{step}", *options, ckpt=ckpt, weighting=())
        assert_same(resumed, through, step)
