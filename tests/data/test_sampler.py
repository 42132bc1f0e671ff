"""The sampler: bijections, no repeats, exact shares, layouts, resume, cost."""

import tracemalloc
from itertools import islice, pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from polyqwen.data.sampling.batches import MicroBatchSampler, split_step
from polyqwen.data.sampling.curriculum import Curriculum, single_phase, two_phase
from polyqwen.data.sampling.permutation import PassOrder, permute, round_keys
from polyqwen.data.sampling.sampler import StepSampler, quota_table

TASKS = {"text_pair": 3.5, "ocr": 1.5, "vqa_single": 1.5, "vqa_multi": 1.0}
ROWS = {"text_pair": 700, "ocr": 150, "vqa_single": 151, "vqa_multi": 97}
GOLDEN_ORDER = [7, 8, 2, 4, 11, 1, 9, 3, 0, 6, 10, 5]
PHASES = [
    {"name": "foundation", "steps": 20, "shares": {"text_pair": 1}},
    {"name": "balance", "steps": 30, "shares": None},
]


def make_curriculum(**changes: Any) -> Curriculum:
    return Curriculum(**({"tasks": TASKS, "phases": PHASES} | changes))


def make_steps(batch: int | None = 24, seed: int = 0, **changes: Any) -> StepSampler:
    batch_rows = changes.pop("batch_rows", None)
    rows = changes.pop("rows", ROWS)
    return StepSampler(rows, make_curriculum(**changes), batch, seed, batch_rows)


def as_set(rows: dict[str, np.ndarray]) -> set[tuple[str, int]]:
    return {(task, row) for task, part in rows.items() for row in part.tolist()}


# Permutation and passes


@settings(deadline=None)
@given(st.integers(1, 3000), st.integers(0, 2**63), st.text(max_size=8), st.integers(0, 99))
def test_permutation_is_a_bijection(size: int, seed: int, name: str, number: int) -> None:
    image = permute(np.arange(size), size, round_keys(seed, name, number))
    assert np.array_equal(np.sort(image), np.arange(size))


def test_permutation_does_not_depend_on_what_else_is_asked() -> None:
    keys = round_keys(3, "ocr", 1)
    whole = permute(np.arange(1000), 1000, keys)
    places = np.array([[999, 0], [17, 17]])
    assert np.array_equal(permute(places, 1000, keys), whole[places])


def test_permutation_is_the_same_on_every_machine() -> None:
    image = permute(np.arange(12), 12, round_keys(0, "text_pair", 0))
    assert image.tolist() == GOLDEN_ORDER


@pytest.mark.parametrize("size", [2, 3, 5, 16, 100])
def test_every_row_comes_first_equally_often(size: int) -> None:
    first = [
        int(permute(np.array([0]), size, round_keys(seed, "a", 0))[0]) for seed in range(20 * size)
    ]
    seen = np.bincount(first, minlength=size)
    assert ((seen - 20) ** 2 / 20).sum() < 3.0 * size + 12  # chi-square, far beyond its mean size-1


def test_orders_differ_by_seed_task_and_pass() -> None:
    keys = [(0, "a", 0), (1, "a", 0), (0, "b", 0), (0, "a", 1), (0, "a|1", 0)]
    orders = {tuple(permute(np.arange(50), 50, round_keys(*key)).tolist()) for key in keys}
    assert len(orders) == len(keys)


@settings(deadline=None)
@given(st.data(), st.integers(1, 60), st.integers(0, 9))
def test_passes_visit_every_row_and_windows_never_repeat(
    data: st.DataObject, rows: int, seed: int
) -> None:
    guard = data.draw(st.integers(1, rows))
    stream = PassOrder(rows, seed, "ocr", guard).rows_at(np.arange(5 * rows))
    for start in range(0, 5 * rows, rows):
        assert np.array_equal(np.sort(stream[start : start + rows]), np.arange(rows))
    for start in range(4 * rows + 1):
        assert len(set(stream[start : start + guard].tolist())) == min(guard, 5 * rows - start)


def test_passes_have_their_own_order_where_rows_allow_it() -> None:
    stream = PassOrder(300, 0, "ocr", 100).rows_at(np.arange(900)).reshape(3, 300)
    assert not np.array_equal(stream[0], stream[1])
    assert not np.array_equal(stream[1], stream[2])
    # at the edge rows = 3 · guard the unguarded order would repeat
    plain = permute(np.arange(300), 300, round_keys(0, "ocr", 1))
    assert set(plain[:100].tolist()) & set(stream[0, -100:].tolist())


@pytest.mark.parametrize(("rows", "guard", "words"), [(0, 1, "drop the task"), (5, 6, "6 rows")])
def test_pass_order_refuses(rows: int, guard: int, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        PassOrder(rows, 0, "ocr", guard)


# Curriculum


def test_two_phases() -> None:
    curriculum = make_curriculum()
    assert curriculum.tasks == tuple(TASKS)
    assert (curriculum.switch_step, curriculum.total_steps) == (20, 50)
    assert curriculum.shares(19).tolist() == [1.0, 0.0, 0.0, 0.0]
    assert curriculum.shares(20) == pytest.approx(np.array([3.5, 1.5, 1.5, 1.0]) / 7.5)
    assert curriculum.phase(19).name == "foundation"
    assert curriculum.phase(20).name == curriculum.phase(999).name == "balance"
    table = curriculum.share_table(15, 25)
    assert np.array_equal(table, np.stack([curriculum.shares(step) for step in range(15, 25)]))


def test_ramp_raises_new_tasks_from_zero() -> None:
    curriculum = make_curriculum(ramp_steps=10)
    ocr = curriculum.share_table(18, 34)[:, 1]
    assert ocr == pytest.approx([0, 0, *(0.2 * r / 10 for r in range(10)), 0.2, 0.2, 0.2, 0.2])
    assert curriculum.share_table(0, 50).sum(axis=1) == pytest.approx(np.ones(50))
    hard = make_curriculum(phases=[PHASES[0], PHASES[1] | {"ramp_steps": 0}], ramp_steps=10)
    assert hard.shares(20)[1] == pytest.approx(0.2)


def test_last_phase_is_filled_up_to_the_total() -> None:
    phases = [PHASES[0], {"name": "rest", "steps": None}]
    assert make_curriculum(phases=phases, total_steps=33).phases[-1].stop == 33
    assert make_curriculum(phases=PHASES[:1]).switch_step is None


def test_two_phase_recipe() -> None:
    assert two_phase(TASKS, switch_step=20, total_steps=50).phases == make_curriculum().phases
    alone = two_phase(TASKS, switch_step=20, total_steps=15)
    assert (alone.switch_step, alone.total_steps, alone.shares(9)[0]) == (None, 15, 1.0)
    mixed = two_phase(TASKS, switch_step=0, total_steps=15, ramp_steps=5)
    assert mixed.shares(0)[1] == pytest.approx(0.2)
    assert mixed.phases == single_phase(TASKS, total_steps=15).phases
    nobody = two_phase(TASKS, switch_step=5, total_steps=15, foundation=["sound"])
    assert nobody.phases == mixed.phases  # none of them takes part


@given(
    st.integers(1, 40), st.integers(1, 100), st.lists(st.floats(0.5, 4.0), min_size=2, max_size=5)
)
def test_phase_two_makes_up_for_phase_one(switch: int, more: int, shares: list[float]) -> None:
    tasks = {f"task{i}": share for i, share in enumerate(shares)}
    total = switch + more
    if total * shares[0] / sum(shares) < switch:
        with pytest.raises(ValueError, match="gives task0 more than its share"):
            two_phase(
                tasks,
                switch_step=switch,
                total_steps=total,
                foundation=["task0"],
                shares_over="run",
            )
        return
    curriculum = two_phase(
        tasks, switch_step=switch, total_steps=total, foundation=["task0"], shares_over="run"
    )
    assert curriculum.shares(0).tolist() == [1.0] + [0.0] * (len(shares) - 1)
    drawn = curriculum.share_table(0, total).sum(axis=0)
    assert drawn == pytest.approx([total * share / sum(shares) for share in shares])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"phases": []}, "empty"),
        ({"phases": [{"name": "a", "steps": None}]}, "'a'.*steps is empty"),
        ({"phases": [{"name": "a", "steps": 0}]}, "'a'.*steps > 0"),
        ({"phases": [{"name": "a", "steps": 5, "share": {}}]}, "unknown keys.*share"),
        ({"phases": [{"name": "a", "steps": 5, "shares": {"ocrr": 1}}]}, "unknown tasks.*ocrr"),
        ({"phases": [{"name": "a", "steps": 5, "shares": {"ocr": -1}}]}, ">= 0"),
        ({"phases": [{"name": "a", "steps": 5, "shares": {"ocr": 0}}]}, "all shares are 0"),
        ({"phases": [{"name": "a", "steps": 5, "ramp_steps": 1}]}, "nothing to ramp from"),
        ({"ramp_steps": 31}, "at most its steps"),
        ({"total_steps": 49}, "leave the last phase's steps empty"),
        ({"start_step": 50}, "start_step"),
    ],
)
def test_curriculum_refuses(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make_curriculum(**changes)


# Quotas


@settings(deadline=None)
@given(st.lists(st.integers(0, 40), min_size=1, max_size=6).filter(any), st.integers(1, 9))
def test_integral_shares_are_exact_at_every_step(parts: list[int], scale: int) -> None:
    shares = np.tile(np.array(parts) / sum(parts), (500, 1))
    quotas, ceiling = quota_table(shares, scale * sum(parts), np.zeros(len(parts), np.int64))
    assert (quotas == scale * np.array(parts)).all()
    assert np.array_equal(ceiling, scale * np.array(parts))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=6).filter(any), st.integers(1, 600))
def test_other_shares_are_floor_or_ceil_and_do_not_drift(parts: list[float], batch: int) -> None:
    share = np.array(parts) / sum(parts)
    quotas, ceiling = quota_table(np.tile(share, (4000, 1)), batch, np.zeros(len(parts), np.int64))
    assert (quotas.sum(axis=1) == batch).all()
    assert (np.abs(quotas - batch * share) < 1 + 1e-6).all()
    assert (quotas <= ceiling).all()
    target = batch * share * np.arange(1, 4001)[:, None]
    # a log-discrepancy bound: (1, 3, 3, 3)/11 of one row already reaches 3.4
    assert np.abs(np.cumsum(quotas, axis=0) - target).max() <= 4.25


def test_shares_do_not_drift_along_a_ramp() -> None:
    curriculum = make_curriculum(
        phases=[PHASES[0], {"name": "all", "steps": 4000}], ramp_steps=3000
    )
    shares = curriculum.share_table(0, 4020)
    quotas, ceiling = quota_table(shares, 50, np.zeros(4, np.int64))
    assert (quotas.sum(axis=1) == 50).all() and (quotas <= ceiling).all()
    assert np.abs(np.cumsum(quotas - 50 * shares, axis=0)).max() <= 4.25


def test_paper_batch_is_exact() -> None:
    quotas = make_steps(480, rows=dict.fromkeys(ROWS, 5000)).quotas
    assert (quotas[:20] == [480, 0, 0, 0]).all()
    assert (quotas[20:] == [224, 96, 96, 64]).all()


def test_fixed_rows_leave_the_rest_to_shares() -> None:
    steps = make_steps(24, batch_rows={"ocr": 6, "vqa_multi": 3})
    assert (steps.quotas[:20] == [24, 0, 0, 0]).all()
    assert (steps.quotas[20:, [1, 3]] == [6, 3]).all()
    assert (steps.quotas.sum(axis=1) == 24).all()
    assert steps.quotas[20:, 0].mean() == pytest.approx(15 * 0.7, abs=0.1)
    everything = {"text_pair": 8, "ocr": 4, "vqa_single": 4, "vqa_multi": 2}
    assert (make_steps(None, batch_rows=everything).quotas[20:] == [8, 4, 4, 2]).all()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"rows": {"ocr": 5}}, "curriculum has"),
        ({"batch_rows": {"ocrr": 5}}, "ocrr"),
        ({"batch_rows": {"ocr": 0}}, "must be >= 1"),
        ({"batch": 0}, "must be >= 1"),
        ({"batch": None, "batch_rows": {"ocr": 5}}, "global_batch=None leaves no rows"),
        ({"batch_rows": {"ocr": 24}}, "leaves no rows"),
        ({"rows": ROWS | {"vqa_multi": 2}}, "4 rows of task 'vqa_multi', which has 2"),
    ],
)
def test_step_sampler_refuses(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make_steps(**changes)


def test_streams_go_on_over_the_switch_and_late_starts() -> None:
    steps, late = make_steps(ramp_steps=7), make_steps(ramp_steps=7, start_step=20)
    for task in ROWS:
        empty = np.zeros(0, np.int64)
        parts = [steps.rows_of_step(step).get(task, empty) for step in range(50)]
        stream = np.concatenate(parts)
        assert len(stream) > 50
        guard = max(map(len, parts))
        assert np.array_equal(
            stream, PassOrder(ROWS[task], 0, task, guard).rows_at(np.arange(len(stream)))
        )
    assert as_set(late.rows_of_step(33)) == as_set(steps.rows_of_step(33))
    with pytest.raises(ValueError, match="step must be in"):
        steps.rows_of_step(50)


# Micro-batches and ranks


@settings(deadline=None)
@given(
    st.lists(st.integers(0, 200), min_size=1, max_size=5),
    st.integers(1, 12),
    st.integers(1, 6),
    st.integers(0, 99),
    st.booleans(),
)
def test_cells_are_even_disjoint_and_cover(
    sizes: list[int], accumulate: int, world: int, offset: int, costly: bool
) -> None:
    rng = np.random.default_rng(offset)
    rows = {f"t{i}": rng.permutation(1000)[:size] for i, size in enumerate(sizes)}
    costs = {task: rng.exponential(size=len(part)) for task, part in rows.items()}
    layout = (accumulate, world, offset)
    parts = split_step(rows, costs if costly else None, *layout)
    again = split_step(rows, costs if costly else None, *layout)
    assert len(parts) == accumulate * world
    counts = {task: np.array([len(cell[task]) for cell in parts]) for task in rows}
    for task, part in rows.items():
        dealt = [cell[task] for cell in parts]
        assert np.array_equal(np.sort(np.concatenate(dealt)), np.sort(part))
        assert all(map(np.array_equal, dealt, [cell[task] for cell in again]))
    for numbers in [*counts.values(), sum(counts.values())]:
        by_cell = np.reshape(numbers, (accumulate, world))
        assert np.ptp(by_cell) <= 1
        assert np.ptp(by_cell.sum(1)) <= 1  # gathered micro-batches
        assert np.ptp(by_cell.sum(0)) <= 2  # ranks


def test_a_gathered_micro_batch_has_its_part_of_every_task() -> None:
    """The paper's second phase: 480 rows a step as 10 micro-batches of 4 ranks."""
    rows = {"text_pair": 223, "ocr": 96, "vqa_single": 97, "vqa_multi": 64}
    step = {task: np.arange(count) for task, count in rows.items()}
    for offset in range(40):
        parts = split_step(step, None, 10, 4, offset)
        for task, count in rows.items():
            gathered = np.reshape([len(cell[task]) for cell in parts], (10, 4)).sum(1)
            assert set(gathered) <= {count // 10, -(-count // 10)}


def test_one_cell_is_the_step_itself() -> None:
    rows = make_steps().rows_of_step(30)
    (only,) = split_step(rows, {task: part * 1.0 for task, part in rows.items()})
    assert all(np.array_equal(only[task], part) for task, part in rows.items())


def test_cells_carry_equal_cost() -> None:
    rng = np.random.default_rng(0)
    rows = {"a": np.arange(224), "b": np.arange(96), "c": np.arange(64)}
    costs = {task: rng.lognormal(4, 0.6, len(part)) for task, part in rows.items()}

    def spread(parts: list[dict[str, np.ndarray]]) -> float:
        loads = [sum(costs[task][part].sum() for task, part in cell.items()) for cell in parts]
        return max(loads) / (sum(loads) / len(loads)) - 1

    assert spread(split_step(rows, costs, 4, 2)) < 0.01
    assert spread(split_step(rows, None, 4, 2)) > 0.1  # the costs matter in this example


def test_split_refuses() -> None:
    for layout in ((0, 1), (1, 0)):
        with pytest.raises(ValueError, match="accumulate and world must be >= 1"):
            split_step({"a": np.arange(3)}, None, *layout)
    with pytest.raises(ValueError, match="costs of task 'a': 2 for 3 rows"):
        split_step({"a": np.arange(3)}, {"a": np.ones(2)}, 1, 2)


@pytest.mark.parametrize("world", [1, 2, 4])
@pytest.mark.parametrize("accumulate", [1, 2, 4])
def test_every_layout_sees_the_same_rows(world: int, accumulate: int) -> None:
    steps = make_steps(ramp_steps=5)
    ranks = [
        list(MicroBatchSampler(steps, accumulate, rank, world, costs=lambda _, rows: rows % 7))
        for rank in range(world)
    ]
    assert all(len(batches) == 50 * accumulate for batches in ranks)
    for step in range(50):
        now = slice(step * accumulate, (step + 1) * accumulate)
        seen = [row for batches in ranks for batch in batches[now] for row in batch]
        assert len(seen) == len(set(seen)) == 24
        assert set(seen) == as_set(steps.rows_of_step(step))


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(0, 50), max_size=5))
def test_resume_gives_the_same_stream(stops: list[int]) -> None:
    steps = make_steps()
    sampler = MicroBatchSampler(steps, 2, 1, 2)
    whole = list(sampler)
    joined = []
    edges = [0, *sorted(stops), 50]
    for start, stop in pairwise(edges):
        fresh = MicroBatchSampler(make_steps(), 2, 1, 2)
        fresh.start_at(start)
        assert len(fresh) == 100
        joined += islice(fresh, 2 * (stop - start))
    assert joined == whole


def test_late_run_counts_from_its_own_beginning() -> None:
    late = MicroBatchSampler(make_steps(start_step=20), max_steps=12)
    assert len(late) == 12
    whole = list(MicroBatchSampler(make_steps()))
    assert list(late) == whole[20:32]
    late.start_at(5)
    assert list(late) == whole[25:32]
    assert list(MicroBatchSampler(make_steps(start_step=20))) == whole[20:]
    assert len(MicroBatchSampler(make_steps(start_step=20))) == len(whole) - 20


def test_costs_as_arrays_and_as_function_agree() -> None:
    arrays = {task: np.arange(rows) % 11 for task, rows in ROWS.items()}
    by_array = MicroBatchSampler(make_steps(), 3, costs=arrays)
    by_function = MicroBatchSampler(make_steps(), 3, costs=lambda _, rows: rows % 11)
    assert list(by_array) == list(by_function) != list(MicroBatchSampler(make_steps(), 3))


def test_feeds_a_data_loader() -> None:
    class Rows:
        def __getitem__(self, key: tuple[str, int]) -> tuple[str, int]:
            return key

    sampler = MicroBatchSampler(make_steps(), max_steps=4)
    loader = DataLoader(Rows(), batch_sampler=sampler, collate_fn=list)  # type: ignore[arg-type]
    assert list(loader) == list(sampler)
    assert len(loader) == 4


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"max_steps": 51}, "max_steps must be in"),
        ({"accumulate": 0}, "accumulate=0"),
        ({"rank": 2, "world": 2}, "rank=2"),
        ({"accumulate": 25}, "a step of 24 rows cannot fill"),
    ],
)
def test_micro_batches_refuse(changes: dict[str, int], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        MicroBatchSampler(make_steps(), **changes)
    with pytest.raises(ValueError, match="step must be in"):
        MicroBatchSampler(make_steps()).start_at(51)


def test_ten_million_rows_take_no_memory() -> None:
    tracemalloc.start()
    try:
        steps = make_steps(480, rows=dict.fromkeys(ROWS, 10_000_000))
        first = next(iter(MicroBatchSampler(steps, 10, 3, 4, costs=lambda _, rows: rows % 512)))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(first) == 12
    assert peak < 1_000_000  # an array of the rows would be 80 MB
