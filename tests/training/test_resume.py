"""Runs over one and two ranks: equal to each other, and going on as if they had never stopped."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import lightning.pytorch as pl
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from polyqwen.build.run import build
from polyqwen.build.trainer import build_trainer
from polyqwen.checkpoints.checkpoint_io import VerifiedCheckpoints
from polyqwen.training.callbacks.base import optimizer_stepped
from tests.conftest import Configure
from tests.ranks import on_ranks

SHORT = [
    "phase1_steps=3",
    "curriculum.total_steps=8",
    "validate_every=4",
    "schedule_steps=3",
    "logger=csv",
    "callbacks.progress=null",
    "callbacks.last=null",
    "callbacks.best=null",
    "trainer.enable_model_summary=false",
    "+trainer.enable_progress_bar=false",
]
STW = ("weighting.eval_steps=2", "weighting.min_samples=1")
STOPS = (1, 3, 4, 5, 6)
DROPOUT = "+model.encoder.config.text_config.attention_dropout=0.2"


class Trace(pl.Callback):
    """Keeps what a run did: rows of micro-batches, losses, first gradients; saves every step."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self.rows: dict[int, list[Any]] = {}
        self.losses: dict[int, float] = {}
        self.gradients: list[Tensor] = []

    def on_train_batch_end(
        self, trainer: Any, module: Any, outputs: Any, batch: Any, index: int
    ) -> None:
        self.rows[index] = [(task, rows.row.tolist()) for task, rows in batch.tasks.items()]
        self.losses[index] = float(module.record.total)
        if optimizer_stepped(trainer, index) and trainer.global_step in STOPS:
            trainer.save_checkpoint(self.out / f"{trainer.global_step}.ckpt")

    def on_before_optimizer_step(self, trainer: Any, module: Any, optimizer: Any) -> None:
        if not self.gradients:
            self.gradients = [p.grad.clone() for p in module.parameters() if p.requires_grad]


class Result(NamedTuple):
    """What is compared of two runs; plain values, so that a forked process can hand it over."""

    state: dict[str, Tensor]
    optimizer: list[Tensor]
    rows: dict[int, list[Any]]
    losses: dict[int, float]
    gradients: list[Tensor]


def fit(
    configure: Configure,
    out: Path,
    *overrides: str,
    ckpt: Path | None = None,
    weighting: Sequence[str] = STW,
    base: Sequence[str] = SHORT,
) -> Result:
    cfg = configure(*base, *weighting, f"run_dir={out}", *overrides)
    out.mkdir(parents=True, exist_ok=True)
    pl.seed_everything(0, workers=True, verbose=False)
    data, model = build(cfg)
    trainer = build_trainer(cfg)
    trace = Trace(out)
    trainer.callbacks.append(trace)  # last, as Lightning's own checkpoints are
    trainer.fit(model, datamodule=data, ckpt_path=ckpt)
    assert trainer.global_step == 8
    states = trainer.optimizers[0].state.values()
    moments = [value.clone() for state in states for value in state.values()]
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    return Result(weights, moments, trace.rows, trace.losses, trace.gradients)


def assert_same(resumed: Result, through: Result, start: int) -> None:
    """Bit for bit: parameters, buffers, moments; the rows in order and the losses from `start`."""
    assert resumed.rows == {i: rows for i, rows in through.rows.items() if i >= start}
    assert resumed.losses == {i: loss for i, loss in through.losses.items() if i >= start}
    for name, value in through.state.items():
        assert torch.equal(resumed.state[name], value), name
    assert all(map(torch.equal, resumed.optimizer, through.optimizer))
    assert len(resumed.optimizer) == len(through.optimizer) > 100


@pytest.mark.parametrize(
    "overrides", [[], ["trainer.accumulate_grad_batches=2"], ["data.num_workers=2"]], ids=str
)
def test_resumed_runs_equal_the_run_through(
    configure: Configure, tmp_path: Path, overrides: list[str]
) -> None:
    batches = 2 if "trainer.accumulate_grad_batches=2" in overrides else 1
    through = fit(configure, tmp_path / "a", DROPOUT, *overrides)
    assert len(through.rows) == 8 * batches
    # mid-phase, at the switch, with validation and weight update due; then a second stop
    for step in (1, 3, 4):
        ckpt = tmp_path / "a" / f"{step}.ckpt"
        resumed = fit(configure, tmp_path / f"b{step}", DROPOUT, *overrides, ckpt=ckpt)
        assert_same(resumed, through, step * batches)
    again = tmp_path / "b4" / "6.ckpt"
    assert_same(
        fit(configure, tmp_path / "c", DROPOUT, *overrides, ckpt=again), through, 6 * batches
    )


def test_later_passes_resume_exactly(configure: Configure, tmp_path: Path) -> None:
    """16 of 64 rows a step: a pass over the text pairs ends at step 4; then a second stop."""
    options = (DROPOUT, "data.rows_per_task=16", "data.num_workers=2")
    through = fit(configure, tmp_path / "a", *options)
    seen = [row for i in range(8) for row in dict(through.rows[i])["text_pair"]]
    first, second = seen[:64], seen[64:]
    assert sorted(first) == sorted(second) == list(range(64))
    assert first != second  # another order
    for step in (4, 5):
        ckpt = tmp_path / "a" / f"{step}.ckpt"
        assert_same(fit(configure, tmp_path / f"b{step}", *options, ckpt=ckpt), through, step)
    ckpt = tmp_path / "b5" / "6.ckpt"
    assert_same(fit(configure, tmp_path / "c", *options, ckpt=ckpt), through, 6)


def test_another_number_of_ranks_goes_on_with_the_same_rows(
    configure: Configure, tmp_path: Path
) -> None:
    one = fit(configure, tmp_path / "one", "data.rows_per_task=4")
    ckpt = tmp_path / "one" / "3.ckpt"

    def run(rank: int) -> Result:
        options = ("trainer.devices=2", "data.rows_per_task=2")
        return fit(configure, tmp_path / "two", *options, ckpt=ckpt)

    two = on_ranks(2, run)
    for index in range(3, 8):
        parts = [dict(result.rows[index]) for result in two]
        for task, indices in one.rows[index]:
            assert sorted(indices) == sorted(parts[0].get(task, []) + parts[1].get(task, []))
    assert two[0].losses == pytest.approx({i: one.losses[i] for i in range(3, 8)}, rel=1e-5)

    back = fit(
        configure, tmp_path / "back", "data.rows_per_task=4", ckpt=tmp_path / "two" / "5.ckpt"
    )
    assert back.rows == {i: rows for i, rows in one.rows.items() if i >= 5}
    # at 5 a window of losses is half full, of two ranks then and of one now
    assert back.losses == pytest.approx({i: one.losses[i] for i in range(5, 8)}, rel=1e-5)
    assert_close(back.state["weighting.base"], one.state["weighting.base"], rtol=1e-5, atol=0.0)


def test_random_numbers_matter_for_the_comparison(configure: Configure, tmp_path: Path) -> None:
    through = fit(configure, tmp_path / "a", DROPOUT)
    path = tmp_path / "a" / "5.ckpt"
    checkpoint = torch.load(path, weights_only=True)  # tensors and plain Python only
    del checkpoint["random_states"]
    VerifiedCheckpoints().save_checkpoint(checkpoint, path)
    resumed = fit(configure, tmp_path / "b", DROPOUT, ckpt=path)
    assert resumed.rows[7] == through.rows[7] and resumed.losses[7] != through.losses[7]


def test_two_ranks_resume_exactly(configure: Configure, tmp_path: Path) -> None:
    """With another number of rows of a task on each rank: sums that only the rank itself knows."""

    def run(rank: int) -> dict[str, Result]:
        unequal = ("data.rows_per_task=null", "data.batch_size=9", "weighting.eval_steps=3")
        options = (DROPOUT, "trainer.devices=2", *unequal)
        results = {"through": fit(configure, tmp_path / "a", *options)}
        for step in (3, 4):
            ckpt = tmp_path / "a" / f"{step}.ckpt"
            results[str(step)] = fit(configure, tmp_path / f"b{step}", *options, ckpt=ckpt)
        return results

    ranks = on_ranks(2, run)
    for results in ranks:
        for step in (3, 4):  # at 4 a window of losses is half full
            assert_same(results[str(step)], results["through"], step)
    first, second = (results["through"] for results in ranks)
    assert first.losses == second.losses and first.rows != second.rows
    pending = torch.load(tmp_path / "a" / "4.ckpt", weights_only=True)["weighting_pending"]
    assert pending[0].any() and not torch.equal(*pending)
    for name, value in first.state.items():
        if not name.endswith("pending"):
            assert torch.equal(value, second.state[name]), name


def test_two_ranks_equal_one_process(configure: Configure, tmp_path: Path) -> None:
    def run(rank: int) -> Result:
        return fit(configure, tmp_path / "two", "trainer.devices=2", "data.rows_per_task=3")

    one = fit(configure, tmp_path / "one", "data.rows_per_task=6")
    two = on_ranks(2, run)
    for index, rows in one.rows.items():
        parts = [dict(result.rows[index]) for result in two]
        for task, indices in rows:
            assert sorted(indices) == sorted(parts[0].get(task, []) + parts[1].get(task, []))
    ours, theirs = (torch.cat([g.flatten() for g in r.gradients]) for r in (two[0], one))
    assert theirs.norm() > 0.1
    assert (ours - theirs).norm() < 1e-5 * theirs.norm()
    assert two[0].losses == two[1].losses
    assert two[0].losses == pytest.approx(one.losses, rel=1e-5)
    assert_close(two[0].state["weighting.base"], one.state["weighting.base"], rtol=1e-5, atol=0.0)


LABELS = (
    "model=tiny_text",
    "model.encoder.config.hidden_dropout_prob=0.0",
    "task=[text_pair,sentiment,topic,sentiment5,intent,text_unlabelled]",
    "curriculum=single_phase",
    "weighting=static",
    "losses.sentiment.contrast_weight=0.1",
    "callbacks.boost=null",
)


def test_label_tasks_resume_exactly(configure: Configure, tmp_path: Path) -> None:
    dropout = "model.encoder.config.hidden_dropout_prob=0.1"
    through = fit(configure, tmp_path / "a", *LABELS, dropout, weighting=())
    for step in (1, 4):
        ckpt = tmp_path / "a" / f"{step}.ckpt"
        resumed = fit(configure, tmp_path / f"b{step}", *LABELS, dropout, ckpt=ckpt, weighting=())
        assert_same(resumed, through, step)
    head = "losses.intent.head.weight"
    start = torch.load(tmp_path / "a" / "1.ckpt", weights_only=True)["state_dict"][head]
    assert not torch.equal(through.state[head], start)


def test_label_tasks_on_two_ranks_equal_one_process(configure: Configure, tmp_path: Path) -> None:
    def run(rank: int) -> Result:
        options = ("trainer.devices=2", "data.rows_per_task=3")
        return fit(configure, tmp_path / "two", *LABELS, *options, weighting=())

    one = fit(configure, tmp_path / "one", *LABELS, "data.rows_per_task=6", weighting=())
    two = on_ranks(2, run)
    ours, theirs = (torch.cat([g.flatten() for g in r.gradients]) for r in (two[0], one))
    assert theirs.norm() > 0.1
    assert (ours - theirs).norm() < 1e-5 * theirs.norm()
    assert two[0].losses == two[1].losses
    assert two[0].losses == pytest.approx(one.losses, rel=1e-5)


def test_a_bad_step_is_skipped_by_all_ranks(configure: Configure, tmp_path: Path) -> None:
    def run(rank: int) -> tuple[int, Result]:
        cfg = configure(*SHORT, f"run_dir={tmp_path}", "trainer.devices=2")
        data, model = build(cfg)
        trainer = build_trainer(cfg)
        plain = model.training_step

        def planted(batch: Any, batch_idx: int) -> Tensor:
            loss = plain(batch, batch_idx)
            return loss * float("nan") if batch_idx == 5 and rank == 1 else loss

        model.training_step = planted  # type: ignore[method-assign]
        trainer.fit(model, datamodule=data)
        guard = next(c for c in trainer.callbacks if type(c).__name__ == "NonFiniteGuard")
        weights = {name: value.clone() for name, value in model.state_dict().items()}
        return guard.total, Result(weights, [], {}, {}, [])

    (skipped, first), (other, second) = on_ranks(2, run)
    assert skipped == other == 1
    for name, value in first.state.items():
        assert value.isfinite().all(), name
        if not name.endswith("pending"):
            assert torch.equal(value, second.state[name]), name


def test_bad_steps_without_end_stop_all_ranks(configure: Configure, tmp_path: Path) -> None:
    def run(rank: int) -> tuple[str, int]:
        cfg = configure(
            *SHORT,
            f"run_dir={tmp_path}",
            "trainer.devices=2",
            "callbacks.nonfinite.max_bad_steps=2",
        )
        data, model = build(cfg)
        trainer = build_trainer(cfg)
        trainer.callbacks.append(Trace(tmp_path))
        plain = model.training_step

        def planted(batch: Any, batch_idx: int) -> Tensor:
            loss = plain(batch, batch_idx)
            return loss * float("nan") if batch_idx >= 4 and rank == 1 else loss

        model.training_step = planted  # type: ignore[method-assign]
        with pytest.raises(RuntimeError, match="2 steps in a row") as error:
            trainer.fit(model, datamodule=data)
        return str(error.value), trainer.global_step

    first, second = on_ranks(2, run)
    assert first == second
    good = torch.load(tmp_path / "4.ckpt", weights_only=True)["state_dict"]
    _, model = build(configure())
    model.load_state_dict(good)
    assert all(value.isfinite().all() for value in good.values())


def test_environment_of_the_test_is_left_alone() -> None:
    assert "LOCAL_RANK" not in os.environ  # forked ranks set it for themselves only
