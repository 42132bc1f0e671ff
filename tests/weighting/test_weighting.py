"""Task weightings: values by hand, fallbacks, limits, statistics, state, two processes."""

import math
import multiprocessing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from polyqwen.weighting.base import Weighting
from polyqwen.weighting.by_loss.calibrated import CalibratedWeighting
from polyqwen.weighting.by_loss.static import StaticWeighting
from polyqwen.weighting.by_loss.stw import StrategicTaskWeighting
from polyqwen.weighting.weight_update import WeightUpdate, format_update

STATIC = {"text_pair": 1.0, "ocr": 1.0, "instruction": 1.2}
ALPHA = {"text_pair": 0.27, "ocr": 1.0, "instruction": 1.25, "vqa_single": 1.0}
BETA = {"foundation": 1.05, "balance": 0.95, "until_step": 100}
LOSSES = (4.25, 1.0, 0.8)
MEAN = 6.05 / 3
TARGET = (MEAN / 4.25 * 0.27, MEAN, MEAN / 0.8 * 1.25)  # the report's own formula, before beta


def make_stw(**changes: Any) -> StrategicTaskWeighting:
    free = {"normalize": "none", "rate_limit": None, "alpha": ALPHA, "beta": BETA}
    return StrategicTaskWeighting(**({"static": STATIC} | free | changes))


def make_all() -> list[Weighting]:
    return [StaticWeighting(STATIC), CalibratedWeighting(STATIC, steps=2), make_stw()]


def observe(weighting: Weighting, losses: Any = LOSSES, rows: Any = (10, 10, 10)) -> None:
    weighting.observe(torch.tensor(losses), torch.tensor(rows))


def updated(weighting: Weighting, step: int = 10) -> WeightUpdate:
    update = weighting.update(step)
    assert update is not None
    return update


def base(weighting: Weighting) -> list[float]:
    return weighting.base.tolist()


# Strategic task weighting


def test_report_numbers() -> None:
    stw = make_stw()
    observe(stw)
    updated(stw)
    assert stw.weights(10).tolist() == pytest.approx([1.05 * t for t in TARGET])
    assert stw.weights(10).tolist() == pytest.approx([0.134523, 2.1175, 3.308594], rel=1e-5)


def test_normalized_weights_sum_to_the_number_of_seen_tasks() -> None:
    stw = make_stw(normalize="sum_to_T")
    observe(stw)
    new = updated(stw).new
    assert list(new.values()) == pytest.approx([3 * t / sum(TARGET) for t in TARGET])
    assert sum(new.values()) == pytest.approx(3.0)
    assert float(stw.weights(0).sum()) == pytest.approx(3.0 * 1.05)
    observe(stw, rows=(10, 0, 10))
    assert (after := updated(stw).new)["ocr"] == new["ocr"]
    assert after["text_pair"] + after["instruction"] == pytest.approx(2.0)


@settings(deadline=None)
@given(st.lists(st.floats(0.05, 20.0), min_size=3, max_size=3), st.permutations(range(3)))
def test_higher_loss_gives_lower_weight_in_any_order(losses: list[float], order: list[int]) -> None:
    stw = make_stw(alpha={}, bounds=(1e-6, 1e6))
    observe(stw, losses)
    new = updated(stw).new
    ranked = sorted(zip(torch.tensor(losses).tolist(), new.values(), strict=True))
    weights = [weight for _, weight in ranked]
    assert weights == sorted(weights, reverse=True)

    tasks = [list(STATIC)[i] for i in order]
    other = make_stw(static={task: STATIC[task] for task in tasks}, alpha={}, bounds=(1e-6, 1e6))
    observe(other, [losses[i] for i in order])
    assert updated(other).new == pytest.approx(new)


def test_beta_switches_at_its_step_and_multiplies_the_fallback() -> None:
    stw = make_stw()
    static = torch.tensor([1.0, 1.0, 1.2])
    assert torch.allclose(stw.weights(99), 1.05 * static)
    assert torch.allclose(stw.weights(100), 0.95 * static)
    forever = make_stw(beta=BETA | {"until_step": None})
    assert torch.allclose(forever.weights(10**9), 1.05 * static)


@pytest.mark.parametrize("rows", [(10, 0, 0), (0, 0, 0), (10, 7, 7)])
def test_too_few_tasks_or_rows_give_static_weights(rows: tuple[int, ...]) -> None:
    stw = make_stw()
    observe(stw)
    updated(stw)
    assert base(stw) != [1.0, 1.0, 1.2]
    observe(stw, rows=rows)
    update = updated(stw)
    assert update.new == STATIC
    assert update.reason.startswith("static weights:") and "2 needed" in update.reason
    assert ("ocr" in update.notes) == (rows[1] == 7)


def test_rate_limit_holds_on_the_way_there_and_back() -> None:
    stw = make_stw(rate_limit=1.5)
    observe(stw)
    assert updated(stw).new == pytest.approx({"text_pair": 1 / 1.5, "ocr": 1.5, "instruction": 1.8})
    for _ in range(9):
        observe(stw)
        update = updated(stw)
    assert list(update.new.values()) == pytest.approx(TARGET)
    assert update.notes == {}
    back = updated(stw)
    assert back.new["text_pair"] == pytest.approx(TARGET[0] * 1.5)
    assert back.notes["text_pair"] == "held, aims 1.000"
    for _ in range(9):
        last = updated(stw)
    assert last.new == pytest.approx(STATIC)


def test_bounds_and_loss_floor() -> None:
    stw = make_stw(bounds=(0.5, 3.0), loss_floor=0.1)
    observe(stw, (1000.0, 0.0, -5.0))
    assert list(updated(stw).new.values()) == [0.5, 3.0, 3.0]
    floored = make_stw(alpha={}, loss_floor=0.1, bounds=(0.01, 100.0))
    observe(floored, (0.3, 0.0, -5.0))
    assert list(updated(floored).new.values()) == pytest.approx([0.5 / 3 / 0.3, 5 / 3, 5 / 3])


def test_relative_losses_are_divided_by_their_chance_level() -> None:
    losses, rows = torch.tensor([4.0, 1.0, 3.0]), torch.full((3,), 10)
    chance = torch.tensor([4.0, 0.0, 2.0])
    updates = {}
    for collect in ("loss", "relative"):
        stw = make_stw(alpha={}, collect=collect)
        stw.observe(losses, rows, chance)
        updates[collect] = updated(stw)
        assert list(updates[collect].mean_losses.values()) == pytest.approx([4.0, 1.0, 3.0])
        assert list(updates[collect].relative_losses.values()) == pytest.approx([1.0, 1.0, 1.5])
    mean = 3.5 / 3
    assert list(updates["relative"].new.values()) == pytest.approx([mean, mean, mean / 1.5])
    assert updates["loss"].new != updates["relative"].new


# Statistics of a window


def test_means_are_weighted_by_rows_and_absent_is_not_zero() -> None:
    stw = make_stw()
    observe(stw, (2.0, 5.0, 1.0), (30, 0, 8))
    observe(stw, (4.0, 3.0, 9.0), (10, 9, 0))
    assert stw.sums.loss.tolist() == [100.0, 27.0, 8.0]
    assert stw.sums.rows.tolist() == [40.0, 9.0, 8.0]
    update = updated(stw)
    assert update.mean_losses == {"text_pair": 2.5, "ocr": 3.0, "instruction": 1.0}
    assert update.counts == {"text_pair": 40, "ocr": 9, "instruction": 8}
    assert stw.sums.rows.sum() == stw.sums.loss.sum() == 0
    observe(stw, rows=(10, 10, 0))
    assert set(updated(stw).mean_losses) == {"text_pair", "ocr"}


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_losses_that_are_not_finite_are_counted_not_collected(bad: float) -> None:
    stw, clean = make_stw(), make_stw()
    for weighting in (stw, clean):
        observe(weighting)
    observe(stw, (bad, bad, 0.8), (10, 0, 10))
    observe(clean, (1.0, 1.0, 0.8), (0, 0, 10))
    assert stw.sums.skipped.tolist() == [1.0, 0.0, 0.0]  # absent tasks may hold anything
    update = updated(stw)
    assert update.new == updated(clean).new
    assert update.notes == {"text_pair": "1 not finite"}


@pytest.mark.parametrize("weighting", make_all(), ids=lambda w: type(w).__name__)
def test_weights_and_statistics_have_no_graph(weighting: Weighting) -> None:
    losses = torch.tensor(LOSSES, requires_grad=True)
    weighting.observe(losses * 2, torch.tensor([1, 1, 1]))
    weights = weighting.weights(0)
    assert weights.dtype == torch.float32 and not weights.requires_grad
    assert not weighting.sums.loss.requires_grad
    (weights * losses).sum().backward()
    assert losses.grad is not None and torch.equal(losses.grad, weights)
    before = weighting.base.clone()
    weights.zero_()
    assert torch.equal(weighting.base, before)


def test_half_precision_training_leaves_statistics_alone() -> None:
    holder = torch.nn.ModuleDict({"linear": torch.nn.Linear(2, 2), "weighting": make_stw()})
    holder.to(torch.bfloat16)
    stw = holder["weighting"]
    assert isinstance(stw, StrategicTaskWeighting)
    assert holder["linear"].weight.dtype == torch.bfloat16
    assert stw.base.dtype == stw.pending.dtype == torch.float64
    for _ in range(300):
        stw.observe(torch.ones(3, dtype=torch.bfloat16), torch.ones(3))
    assert stw.sums.rows.tolist() == [300.0] * 3


# Static and calibrated weights


def test_static_weights_never_change_but_report() -> None:
    weighting = StaticWeighting(STATIC)
    observe(weighting)
    update = updated(weighting)
    assert update.old == update.new == STATIC
    assert update.mean_losses["text_pair"] == 4.25
    assert torch.allclose(weighting.weights(10**6), torch.tensor([1.0, 1.0, 1.2]))


def test_calibrated_weights_freeze_after_each_task_had_its_steps() -> None:
    weighting = CalibratedWeighting(STATIC, steps=2)
    for step in range(3):  # one task only: the third step is no longer collected
        observe(weighting, (2.0 if step < 2 else 99.0, 1.0, 1.0), (10, 0, 0))
        assert weighting.update(step) is None and weighting.due(step)
    assert base(weighting) == [1.0, 1.0, 1.2]
    observe(weighting, (7.0, 1.0, 0.25), (10, 30, 10))
    assert weighting.update(3) is None
    observe(weighting, (7.0, 5.0, 0.25), (10, 10, 10))
    update = updated(weighting, 4)
    inverse = (1 / 2.0, 1 / 2.0, 1 / 0.25)  # rows weigh: (30 · 1 + 10 · 5) / 40 = 2
    assert list(update.new.values()) == pytest.approx([3 * i / sum(inverse) for i in inverse])
    assert not weighting.due(5) and "frozen" in update.reason
    observe(weighting, (1.0, 50.0, 3.0))
    assert updated(weighting, 5).new == update.new


# State


@pytest.mark.parametrize("number", range(3))
def test_state_round_trips_into_a_fresh_object_mid_window(number: int, tmp_path: Path) -> None:
    whole, first, second = (make_all()[number] for _ in range(3))
    batches = [((4.0, 1.0, 0.5), (9, 3, 8)), ((2.0, 3.0, 0.9), (9, 30, 8)), (LOSSES, (8, 8, 8))]
    for part, (losses, rows) in enumerate(batches):
        observe(whole, losses, rows)
        observe(first if part < 2 else second, losses, rows)
        if part == 0:
            assert whole.update(1) == first.update(1)
        if part == 1:
            torch.save(first.state_dict(), tmp_path / "state.pt")
            second.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert whole.sums.rows.sum() > 24
    assert whole.update(2) == second.update(2) is not None
    assert torch.equal(whole.weights(3), second.weights(3))
    assert number == 0 or base(second) != [1.0, 1.0, 1.2]


def test_state_of_other_tasks_or_another_order_is_refused() -> None:
    state = StaticWeighting(STATIC).state_dict()
    with pytest.raises(ValueError, match="another order"):
        StaticWeighting(dict(reversed(STATIC.items()))).load_state_dict(state)


def _rank_update(rank: int, folder: str, results: Any) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/init", rank=rank, world_size=2)
    stw = make_stw()
    observe(stw, *_RANK_BATCHES[rank])
    stw.sync()  # as before a checkpoint in the middle of a window
    observe(stw, *_RANK_BATCHES[rank])
    results.put((rank, tuple(updated(stw)[1:6]), stw.weights(0).tolist()))
    dist.destroy_process_group()


_RANK_BATCHES = [((4.0, 1.0, 0.5), (9, 0, 5)), ((2.0, 3.0, math.nan), (3, 12, 4))]


def test_two_processes_agree_with_one_that_saw_everything(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    workers = [
        context.Process(target=_rank_update, args=(rank, str(tmp_path), results))
        for rank in range(2)
    ]
    for worker in workers:
        worker.start()
    answers = sorted(results.get(timeout=30) for _ in workers)
    for worker in workers:
        worker.join(timeout=30)
    alone = make_stw()
    for batch in 2 * _RANK_BATCHES:
        observe(alone, *batch)
    expected = (tuple(updated(alone)[1:6]), alone.weights(0).tolist())
    assert answers[0][1:] == answers[1][1:] == expected
    assert expected[1] != pytest.approx([1.05, 1.05, 1.26])


# Log line and refused arguments


def test_log_line_holds_everything() -> None:
    stw = make_stw(rate_limit=1.5)
    observe(stw, rows=(10, 10, 0))
    line = format_update(updated(stw, 200))
    assert "\n" not in line
    assert line.startswith(
        "step 200: text_pair: loss 4.2500 (relative 4.2500, 10 rows) 1.000 → 0.667"
    )
    assert "[held, aims 0.167]" in line
    assert "instruction: unseen 1.200 → 1.200" in line
    assert line.endswith("| inverse loss, normalize none; beta 0.95")


@pytest.mark.parametrize("values", [torch.ones(2), torch.ones(3, 1), torch.tensor(1.0)])
def test_observe_refuses_wrong_shapes(values: Tensor) -> None:
    with pytest.raises(ValueError, match="losses must have shape"):
        make_stw().observe(values, torch.ones(3))
    with pytest.raises(ValueError, match="counts must have shape"):
        make_stw().observe(torch.ones(3), values)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: StaticWeighting({}), "static is empty"),
        (lambda: StaticWeighting({"ocr": 0.0}), "static.ocr"),
        (lambda: StaticWeighting({"ocr": math.inf}), "static.ocr"),
        (lambda: CalibratedWeighting(STATIC, steps=0), "steps"),
        (lambda: CalibratedWeighting(STATIC, loss_floor=0.0), "loss_floor"),
        (lambda: make_stw(alpha={"ocr": -1.0}), r"alpha\.ocr"),
        (lambda: make_stw(beta={"foundation": 1.0}), "beta"),
        (lambda: make_stw(beta=BETA | {"balance": 0.0}), r"beta\.balance"),
        (lambda: make_stw(beta=BETA | {"until_step": -1}), r"beta\.until_step"),
        (lambda: make_stw(normalize="sum"), "sum_to_T"),
        (lambda: make_stw(collect="los"), "relative"),
        (lambda: make_stw(min_tasks=0), "min_tasks"),
        (lambda: make_stw(min_samples=0), "min_samples"),
        (lambda: make_stw(loss_floor=0.0), "loss_floor"),
        (lambda: make_stw(bounds=(2.0, 1.0)), "bounds"),
        (lambda: make_stw(bounds=(0.5, 1.1)), r"static\.instruction"),
        (lambda: make_stw(rate_limit=1.0), "rate_limit"),
    ],
)
def test_refuses(make: Callable[[], Weighting], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make()
