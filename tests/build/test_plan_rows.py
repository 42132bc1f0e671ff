"""Rows of a plan: what the sampler deals, what a row is told from, how often the data is passed."""

import time

import numpy as np
import pytest

from polyqwen.build.plan.rows import (
    Layout,
    SplitRows,
    micro_batch_rows,
    phases_of,
    plan_phases,
    plan_tasks,
    share_curve,
)
from polyqwen.build.plan.steps import plan_rows
from polyqwen.build.plan.types import PhasePlan
from polyqwen.data.rows.task import Task
from polyqwen.data.sampling.batches import MicroBatchSampler
from polyqwen.data.sampling.curriculum import Curriculum, two_phase
from polyqwen.data.sampling.sampler import StepSampler
from tests.conftest import Configure

TASKS = {
    "a": Task({"query_text": "q", "document_text": "d"}, prefix="<a>"),
    "b": Task({"query_text": "q", "document_text": "d", "negatives": "n"}, prefix="<b>"),
    "c": Task({"query_text": "q", "labels": "l"}, prefix="<c>", label="l", classes=("x", "y")),
}
PAPER = {"text_pair": 3_500_000, "ocr": 1_500_000, "vqa_single": 1_500_000, "vqa_multi": 1_000_000}


def steps_of(total: int = 20, switch: int = 5, start: int = 0, rows: int = 100) -> StepSampler:
    shares = {"a": 2.0, "b": 1.0, "c": 1.0}
    curriculum = two_phase(
        shares, switch_step=switch, total_steps=total, start_step=start, foundation=["a"]
    )
    return StepSampler(dict.fromkeys(TASKS, rows), curriculum, 30, seed=0)


def phases_planned(
    steps: StepSampler,
    layout: Layout,
    rows: dict[str, SplitRows],
    tasks: dict[str, Task] | None = None,
) -> list[PhasePlan]:
    together = [
        micro_batch_rows(steps, layout, p.start, p.stop) for p in phases_of(steps.curriculum)
    ]
    return plan_phases(steps, together, tasks or TASKS, rows)


def sizes(train: int | None = 100, given: float = 0.0) -> dict[str, SplitRows]:
    return dict.fromkeys(TASKS, SplitRows(train, None, None, given))


@pytest.mark.parametrize(("accumulate", "world"), [(1, 1), (2, 1), (1, 3), (3, 2)])
def test_micro_batches_are_those_that_the_samplers_of_all_processes_deal(
    accumulate: int, world: int
) -> None:
    steps = steps_of()
    dealt = np.zeros((20 * accumulate, 3), int)
    for rank in range(world):
        sampler = MicroBatchSampler(steps, accumulate, rank, world)
        for i, batch in enumerate(sampler):
            for task, _ in batch:
                dealt[i, list(TASKS).index(task)] += 1
    assert (micro_batch_rows(steps, Layout(accumulate, world), 0, 20) == dealt).all()


def test_every_row_of_a_micro_batch_has_the_others_as_negatives() -> None:
    first, second = phases_planned(steps_of(), Layout(2, 1), sizes())
    assert (first.name, first.start, first.stop, first.rows) == ("foundation", 0, 5, 30.0)
    (alone,) = first.tasks
    assert (alone.task, alone.rows, alone.share) == ("a", 30.0, 1.0)
    assert alone.negatives == 14.0  # two micro-batches of 15
    tasks = {task.task: task for task in second.tasks}
    assert tasks["a"].rows == 15.0 and tasks["a"].share == 0.5
    # 8 and 7 rows in turn: Σ n (n − 1) / Σ n
    assert tasks["a"].negatives == pytest.approx((8 * 7 + 7 * 6) / 15)
    assert tasks["c"].negatives is None  # classes have none


def test_given_negatives_of_all_rows_count() -> None:
    _, second = phases_planned(steps_of(), Layout(1, 1), sizes(given=2.0))
    negatives = {task.task: task.negatives for task in second.tasks}
    assert negatives["b"] == pytest.approx(7.5 - 1 + 2 * 7.5, abs=0.3)


def test_given_negatives_alone_do_not_grow_with_the_batch() -> None:
    fields = {"query_text": "q", "document_text": "d", "negatives": "n"}
    tasks = {**TASKS, "b": Task(fields, prefix="<b>", negatives_from="given")}
    _, second = phases_planned(steps_of(), Layout(1, 1), sizes(given=2.0), tasks)
    assert {task.task: task.negatives for task in second.tasks}["b"] == 2.0


def test_passes_count_what_is_drawn_and_what_is_left() -> None:
    steps = steps_of()
    tasks = {task.task: task for task in plan_tasks(steps, sizes())}
    drawn = 5 * 30 + 15 * 15
    assert (tasks["a"].drawn, tasks["a"].passes) == (drawn, drawn / 100)
    seen = {row for step in range(20) for row in steps.rows_of_step(step)["a"].tolist()}
    assert tasks["a"].never_seen == 100 - len(seen) == 0
    seldom = {t.task: t for t in plan_tasks(steps_of(total=8, rows=400), sizes(400))}
    assert seldom["b"].never_seen == 400 - seldom["b"].drawn > 300


@pytest.mark.parametrize("start", [5, 7, 12])
@pytest.mark.parametrize("rows", [31, 47, 90, 400])
def test_a_late_start_counts_the_different_rows_of_its_own_steps(start: int, rows: int) -> None:
    steps = steps_of(start=start, rows=rows)
    seen: dict[str, set[int]] = {task: set() for task in TASKS}
    for step in range(start, 20):
        for task, found in steps.rows_of_step(step).items():
            seen[task] |= set(found.tolist())
    for task in plan_tasks(steps, sizes(rows)):
        assert task.never_seen == rows - len(seen[task.task])


def test_a_phase_before_the_start_is_left_out() -> None:
    (only,) = phases_planned(steps_of(start=7), Layout(1, 1), sizes())
    assert (only.name, only.start, only.stop) == ("balance", 7, 20)


def test_a_task_in_some_steps_only_counts_for_those() -> None:
    from polyqwen.data.sampling.shares import RoundRobin

    curriculum = Curriculum({"a": 1.0, "b": 1.0, "c": 1.0}, [{"name": "all"}], total_steps=9)
    steps = StepSampler(dict.fromkeys(TASKS, 100), curriculum, 30, 0, sampling=RoundRobin())
    (phase,) = phases_planned(steps, Layout(1, 1), sizes())
    a = phase.tasks[0]
    assert (a.rows, a.negatives) == (10.0, 29.0) and a.present == pytest.approx(1 / 3)


def test_the_curve_of_shares_is_that_of_the_rows_drawn() -> None:
    steps = steps_of(total=400, switch=150)
    curve = share_curve(steps)
    assert curve.steps[0] == 0 and 150 in curve.steps and len(curve.steps) == 200
    assert curve.shares["a"][:100] == (1.0,) * 100
    for i in (0, 99, 100, 199):
        start, stop = [*curve.steps, 400][i : i + 2]
        drawn = steps.quotas[start:stop].sum(axis=0) / (30 * (stop - start))
        told = [curve.shares[task][i] for task in TASKS]
        assert told == pytest.approx(drawn.tolist(), abs=1e-4)
    assert share_curve(steps_of(start=7)).steps == tuple(range(7, 20))


def test_rows_that_are_not_known_leave_the_rest(configure: Configure) -> None:
    cfg = configure()
    planned = plan_rows(cfg, {task: SplitRows(None, None, None) for task in PAPER})
    assert {task.passes for task in planned.tasks} == {None}
    assert all(task.drawn > 0 and task.never_seen is None for task in planned.tasks)
    assert planned.phases[0].tasks[0].negatives == 3.0


def test_what_may_come_otherwise_is_noted(configure: Configure) -> None:
    rows = dict.fromkeys(PAPER, 500)
    assert plan_rows(configure(), rows).notes == []
    free = ("data.rows_per_task=null", "data.batch_size=20")
    (note,) = plan_rows(configure("data/sampling=by_loss", *free), rows).notes
    assert "those of the start" in note
    unknown = dict.fromkeys(PAPER, SplitRows(None, None, None))
    (note,) = plan_rows(configure("data/sampling=by_size", *free), unknown).notes
    assert "not known" in note
    labels = configure("model=tiny_text", "task=[sentiment,topic]", "curriculum=single_phase")
    (note,) = plan_rows(labels, {"sentiment": 500, "topic": 500}).notes
    assert "several labels" in note


def test_the_papers_run_is_planned_within_a_second(configure: Configure) -> None:
    cfg = configure("experiment=vipolyqwen", "data.root=/nowhere", small=False)
    begun = time.perf_counter()
    planned = plan_rows(cfg, PAPER)
    assert time.perf_counter() - begun < 1.0
    assert planned.phases[-1].rows == 480.0
    assert sum(task.drawn for task in planned.tasks) == 480 * cfg.curriculum.total_steps
    foundation, balance = planned.phases
    assert foundation.tasks[0].negatives == 47.0  # 12 rows of 4 processes
    ocr = next(task for task in balance.tasks if task.task == "ocr")
    assert (ocr.rows / 10 - 1) - 0.05 < (ocr.negatives or 0.0) < (ocr.rows / 10 - 1) + 0.05
    assert [task.passes for task in planned.tasks] == [pytest.approx(1.0, abs=0.005)] * 4
