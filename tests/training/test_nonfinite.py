"""NaN where it may arise: the same decision on all ranks, the rows named, no weight harmed."""

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from polyqwen.build.run import build
from polyqwen.build.trainer import build_trainer
from polyqwen.training.callbacks.nonfinite_guard import (
    FILE,
    NonFiniteGuard,
    TooManyBadSteps,
    last_good,
)
from polyqwen.training.module import EmbeddingModule
from tests.config.test_bad_input import assert_refused, forked
from tests.conftest import Configure
from tests.ranks import on_ranks
from tests.training.test_callbacks import logged
from tests.training.test_resume import SHORT

NAN = float("nan")
Plant = Callable[[EmbeddingModule], None]


def in_an_embedding(task: str, step: int, place: int = 0) -> Plant:
    """One content of one row, in the first micro-batch of a step."""

    def plant(model: EmbeddingModule) -> None:
        plain, planted = model.project, []

        def project(pooled: Tensor, tasks: Any) -> Any:
            features = plain(pooled, tasks)
            trains = model.training and torch.is_grad_enabled()
            if not trains or model.step != step or planted or task not in features.tasks:
                return features
            factor = torch.ones_like(features.embeddings)
            factor[features.tasks[task].query[place]] = NAN
            planted.append(int(features.tasks[task].row[place]))
            return features._replace(embeddings=features.embeddings * factor)

        model.project = project  # type: ignore[method-assign]
        model.planted = planted  # type: ignore[assignment]

    return plant


def in_the_hidden_states(*batches: int) -> Plant:
    """All of the encoder's output in some loader batches, so that it is in all gradients too."""

    def plant(model: EmbeddingModule) -> None:
        plain, now = model.training_step, [-1]

        def step(batch: Any, batch_idx: int) -> Tensor:
            now[0] = batch_idx
            return plain(batch, batch_idx)

        def spoil(encoder: Any, given: Any, hidden: Tensor) -> Tensor | None:
            return hidden * NAN if model.training and now[0] in batches else None

        model.training_step = step  # type: ignore[method-assign]
        model.encoder.register_forward_hook(spoil)

    return plant


def no_loss_in(*batches: int) -> Plant:
    """What remains of a run where these loader batches have a loss of zero."""

    def plant(model: EmbeddingModule) -> None:
        plain = model.training_step

        def step(batch: Any, batch_idx: int) -> Tensor:
            return plain(batch, batch_idx) * float(batch_idx not in batches)

        model.training_step = step  # type: ignore[method-assign]

    return plant


def in_a_loss(task: str, steps: Sequence[int]) -> Plant:
    """The total of one task's loss."""

    def plant(model: EmbeddingModule) -> None:
        def spoil(loss: Any, given: Any, output: Any) -> Any:
            bad = model.training and model.step in steps
            return output._replace(total=output.total * NAN) if bad else None

        model.losses[task].register_forward_hook(spoil)

    return plant


def in_a_losss_gradient(task: str, step: int) -> Plant:
    """A loss that is finite, with a gradient that is not (a root at zero)."""

    def plant(model: EmbeddingModule) -> None:
        def spoil(loss: Any, given: Any, output: Any) -> Any:
            if not model.training or model.step != step:
                return None
            zero = (given[0].query[1] - given[0].query[1].detach()).sum()
            return output._replace(total=output.total + zero.abs().sqrt())

        model.losses[task].register_forward_hook(spoil)

    return plant


def in_the_model(model: EmbeddingModule) -> None:
    """A parameter's gradient, at step 4; the losses know nothing of it."""
    parameter = model.projection.alpha
    assert isinstance(parameter, Tensor)
    parameter.register_hook(lambda gradient: gradient * NAN if model.step == 4 else gradient)


def fit(configure: Configure, out: Path, plant: Plant, *overrides: str) -> Any:
    """(guard, model, error) of a short run with something planted."""
    cfg = configure(*SHORT, "weighting.eval_steps=2", f"run_dir={out}", *overrides)
    data, model = build(cfg)
    trainer = build_trainer(cfg)
    plant(model)
    error = None
    try:
        trainer.fit(model, datamodule=data)
    except TooManyBadSteps as stop:
        error = stop
    guard = next(c for c in trainer.callbacks if isinstance(c, NonFiniteGuard))
    return guard, model, error


def entries(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / FILE).read_text().splitlines()]


def assert_finite(model: EmbeddingModule) -> None:
    for name, value in model.named_parameters():
        assert value.isfinite().all(), name
    assert model.weighting.weights(model.step).isfinite().all()


ACCUMULATE = "trainer.accumulate_grad_batches=2"
DROPPED = "train/dropped_micro_batches"
MODES = {
    "plain": (),
    "cached": ("large_batch=cached",),
    "bf16": ("trainer.precision=bf16-mixed",),
    "one by one": ("weighting=pcgrad",),
    "in the step": ("weighting=mgda",),
    "after the step": ("weighting=famo",),
    "lossrag": ("weighting=lossrag", "data.trusted_rows=8"),
    "own projections": ("model/sharing=soft",),
}


@pytest.mark.parametrize("mode", MODES)
def test_the_row_is_named_and_the_step_skipped(
    configure: Configure, tmp_path: Path, mode: str, caplog: pytest.LogCaptureFixture
) -> None:
    plant = in_an_embedding("ocr", 4, 2)
    guard, model, error = fit(configure, tmp_path, plant, *MODES[mode])
    assert error is None and (guard.total, guard.in_a_row) == (1, 0)
    assert_finite(model)
    (entry,) = entries(tmp_path)
    (bad,) = entry["rows"]
    assert (entry["step"], bad["task"], bad["cause"], bad["rank"]) == (4, "ocr", "embedding", 0)
    assert bad["rows"] == model.planted and bad["micro_batch"] == 0
    assert (entry["skipped"], entry["dropped_micro_batches"], guard.dropped) == (True, [0], 1)
    (line,) = [r.message for r in caplog.records if "skipped" in r.message]
    assert f"ocr rows {model.planted[0]} of rank 0: embedding not finite" in line


@pytest.mark.parametrize("mode", MODES)
def test_one_micro_batch_of_two_costs_itself(
    configure: Configure, tmp_path: Path, mode: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The step is taken, its weighting learns from the other one, and it is no bad step."""
    plant, few = in_an_embedding("ocr", 4, 2), "callbacks.nonfinite.max_bad_steps=1"
    guard, model, error = fit(configure, tmp_path, plant, ACCUMULATE, few, *MODES[mode])
    assert error is None and (guard.total, guard.in_a_row, guard.dropped) == (0, 0, 1)
    assert_finite(model)
    assert int(model.weighting.kept) == 0
    (entry,) = entries(tmp_path)
    (bad,) = entry["rows"]
    assert (entry["step"], entry["skipped"], entry["dropped_micro_batches"]) == (4, False, [0])
    assert (bad["task"], bad["cause"], bad["micro_batch"]) == ("ocr", "embedding", 0)
    assert bad["rows"] == model.planted
    (line,) = [r.message for r in caplog.records if "goes on" in r.message]
    assert line.startswith("step 4 goes on without 1 of 2 micro-batches not finite (1 in all); ocr")
    written = logged(tmp_path)
    counts = [row[DROPPED] for row in written if DROPPED in row]
    assert [float(count) for count in counts] == [1.0]
    assert not any(value == "nan" for row in written for value in row.values())


@pytest.mark.parametrize(
    "mode",
    [(), ("large_batch=cached",), ("large_batch=checkpoint",), ("trainer.precision=bf16-mixed",)],
    ids=str,
)
def test_a_dropped_micro_batch_is_one_of_zero_loss(
    configure: Configure, tmp_path: Path, mode: tuple[str, ...]
) -> None:
    """Bit for bit: nothing else of the step changes, such as the divisor, though all is NaN."""
    options = (ACCUMULATE, "weighting=static", *mode)
    guard, model, _ = fit(configure, tmp_path / "a", in_the_hidden_states(4, 11), *options)
    _, other, _ = fit(configure, tmp_path / "b", no_loss_in(4, 11), *options)
    assert (guard.total, guard.dropped) == (0, 2)
    assert_finite(model)
    expected = dict(other.named_parameters())
    for name, value in model.named_parameters():
        assert torch.equal(value, expected[name]), name


def test_a_step_of_dropped_micro_batches_only_is_skipped(
    configure: Configure, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Its gradients are all zero, which would still move AdamW."""
    guard, model, _ = fit(configure, tmp_path, in_the_hidden_states(8, 9), ACCUMULATE)
    assert (guard.total, guard.in_a_row, guard.dropped) == (1, 0, 2)
    assert_finite(model)
    (entry,) = entries(tmp_path)
    assert (entry["step"], entry["dropped_micro_batches"]) == (4, [0, 1])
    assert entry["skipped"] and not entry["parameters"]
    assert {bad["micro_batch"] for bad in entry["rows"]} == {0, 1}
    assert "step 4 skipped: 2 of 2 micro-batches not finite" in caplog.text


def test_dropped_micro_batches_are_counted_over_a_resume() -> None:
    guard, other, old = NonFiniteGuard(), NonFiniteGuard(), NonFiniteGuard()
    guard.total, guard.in_a_row, guard.dropped = 3, 1, 7
    other.load_state_dict(guard.state_dict())
    assert other.state_dict() == guard.state_dict()
    old.load_state_dict({"in_a_row": 1, "total": 3})
    assert old.state_dict() == {"in_a_row": 1, "total": 3, "dropped": 0}


def test_a_loss_of_one_task(configure: Configure, tmp_path: Path) -> None:
    guard, model, _ = fit(configure, tmp_path, in_a_loss("vqa_single", [5]))
    assert guard.total == 1
    assert_finite(model)
    (bad,) = entries(tmp_path)[0]["rows"]
    assert (bad["task"], bad["cause"]) == ("vqa_single", "loss") and len(bad["rows"]) == 4


def test_a_gradient_of_a_finite_loss(configure: Configure, tmp_path: Path) -> None:
    guard, model, _ = fit(configure, tmp_path, in_a_losss_gradient("ocr", 5))
    assert guard.total == 1
    assert_finite(model)
    (bad,) = entries(tmp_path)[0]["rows"]
    assert (bad["task"], bad["cause"]) == ("ocr", "gradient of the loss")
    assert len(bad["rows"]) == 1  # the second row


def test_a_gradient_within_the_model(
    configure: Configure, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    guard, model, _ = fit(configure, tmp_path, in_the_model)
    assert guard.total == 1
    assert_finite(model)
    (entry,) = entries(tmp_path)
    assert entry["parameters"] == ["projection.alpha"]
    assert {bad["cause"] for bad in entry["rows"]} == {"gradient of the model"}
    assert len(entry["rows"]) == 4
    assert "gradients of projection.alpha are not" in caplog.text


Ranked = tuple[int, int, list[int], dict[str, Tensor]]


def on_one_rank(
    configure: Configure, out: Path, world: int, plant: Plant, *overrides: str
) -> list[Ranked]:
    """(steps skipped, micro-batches dropped, rows planted, weights) of all; the last one is bad."""

    def run(rank: int) -> Ranked:
        mine = plant if rank == world - 1 else lambda _: None
        guard, model, _ = fit(configure, out, mine, f"trainer.devices={world}", *overrides)
        assert_finite(model)
        weights = {n: p.detach().clone() for n, p in model.named_parameters()}
        return guard.total, guard.dropped, getattr(model, "planted", []), weights

    return on_ranks(world, run)


@pytest.mark.parametrize(
    "mode", [(), ("large_batch=cached",), ("weighting=mgda",)], ids=["plain", "cached", "mgda"]
)
def test_one_rank_only(configure: Configure, tmp_path: Path, mode: tuple[str, ...]) -> None:
    plant = in_an_embedding("ocr", 4, 1)
    first, second = on_one_rank(configure, tmp_path, 2, plant, *mode)
    assert first[:2] == second[:2] == (1, 1)
    assert all(torch.equal(value, second[3][name]) for name, value in first[3].items())
    (bad,) = entries(tmp_path)[0]["rows"]
    assert (bad["rank"], bad["task"], bad["rows"]) == (1, "ocr", second[2])


@pytest.mark.parametrize(
    ("world", "mode"),
    [(2, ()), (3, ()), (2, ("large_batch=cached",)), (2, ("weighting=pcgrad",))],
    ids=str,
)
def test_one_rank_costs_all_ranks_that_micro_batch(
    configure: Configure, tmp_path: Path, world: int, mode: tuple[str, ...]
) -> None:
    plant = in_an_embedding("ocr", 4, 1)
    ranks = on_one_rank(configure, tmp_path, world, plant, ACCUMULATE, *mode)
    for rank in ranks:
        assert rank[:2] == (0, 1)
        assert all(torch.equal(value, rank[3][name]) for name, value in ranks[0][3].items())
    (entry,) = entries(tmp_path)
    (bad,) = entry["rows"]
    assert (entry["skipped"], entry["dropped_micro_batches"]) == (False, [0])
    assert (bad["rank"], bad["task"], bad["rows"]) == (world - 1, "ocr", ranks[-1][2])


def test_a_loss_of_one_rank_only_is_dropped_by_all(configure: Configure, tmp_path: Path) -> None:
    """Losses of equal pairs are equal, but for a loss that draws or a device that errs."""
    bad = in_a_loss("vqa_multi", [5])
    ranks = on_one_rank(configure, tmp_path, 2, bad, "weighting=static")
    assert [rank[:2] for rank in ranks] == [(1, 1)] * 2
    assert all(torch.equal(value, ranks[1][3][name]) for name, value in ranks[0][3].items())
    (rows,) = entries(tmp_path)[0]["rows"]
    assert (rows["rank"], rows["task"], rows["cause"]) == (1, "vqa_multi", "loss")


@pytest.mark.parametrize("mode", [(), ("large_batch=cached",)], ids=str)
def test_a_rank_of_nothing_but_nan_leaves_the_others_gradients(
    configure: Configure, tmp_path: Path, mode: tuple[str, ...]
) -> None:
    """As if that micro-batch had a loss of zero on all ranks, bit for bit."""
    options = (ACCUMULATE, "weighting=static", *mode)
    bad = in_the_hidden_states(9)
    ranks = on_one_rank(configure, tmp_path / "a", 2, bad, *options)

    def zero(rank: int) -> dict[str, Tensor]:
        two = "trainer.devices=2"
        _, model, _ = fit(configure, tmp_path / "b", no_loss_in(9), two, *options)
        return {n: p.detach().clone() for n, p in model.named_parameters()}

    expected = on_ranks(2, zero)[0]
    for total, dropped, _, weights in ranks:
        assert (total, dropped) == (0, 1)
        assert all(torch.equal(value, expected[name]) for name, value in weights.items())


@pytest.mark.parametrize("mode", [(), (ACCUMULATE,)], ids=str)
def test_bad_steps_without_end_leave_the_last_good_checkpoint(
    configure: Configure, tmp_path: Path, mode: tuple[str, ...]
) -> None:
    last = "callbacks.last={_target_: lightning.pytorch.callbacks.ModelCheckpoint, "
    last += f"dirpath: {tmp_path}/checkpoints, filename: last, every_n_train_steps: 2, "
    last += "enable_version_counter: false}"
    forever = in_a_loss("ocr", range(4, 99))
    limit = "callbacks.nonfinite.max_bad_steps=3"
    guard, model, error = fit(configure, tmp_path, forever, limit, last, *mode)
    assert guard.in_a_row == 3
    assert "3 steps in a row had losses or gradients that are not finite" in str(error)
    good = tmp_path / "checkpoints" / "last.ckpt"
    assert f"the last good checkpoint is {good}" in str(error)
    saved = torch.load(good, weights_only=True)
    assert all(value.isfinite().all() for value in saved["state_dict"].values())
    for name, value in model.named_parameters():  # nothing has moved since step 4
        assert torch.equal(value, saved["state_dict"][name]), name
    assert [entry["step"] for entry in entries(tmp_path)] == [4, 5, 6]


def test_a_checkpoint_of_infinite_weights_is_not_called_good(
    configure: Configure, tmp_path: Path
) -> None:
    trainer, model = build_trainer(configure()), build(configure()).model
    (tmp_path / "checkpoints").mkdir()
    paths = [tmp_path / "checkpoints" / f"{name}.ckpt" for name in ("early", "late")]
    torch.save({"state_dict": model.state_dict()}, paths[0])
    with torch.no_grad():
        model.projection.alpha.fill_(float("inf"))
    torch.save({"state_dict": model.state_dict()}, paths[1])
    for seconds, path in enumerate(paths):
        os.utime(path, (seconds, seconds))
    assert last_good(trainer, model) == f"the last good checkpoint is {paths[0]}"
    paths[0].unlink()
    assert last_good(trainer, model) == "there is no good checkpoint"


def test_a_run_of_bad_steps_ends_in_one_line(folder: Path, cache: Path, tmp_path: Path) -> None:
    """As a user meets it: one line, exit code 1, a file to look into."""
    own = ["data=folder", f"data.root={folder}", f"data_cache={cache}", "data.batch_size=null"]
    few = ["data.rows_per_task=4", "curriculum.total_steps=30", "curriculum.switch_step=1"]
    many = ["optimizer.head_lr=1e30", "optimizer.backbone_lr=1e30", "optimizer.warmup_fraction=0"]
    out = f"hydra.run.dir={tmp_path}/run"
    ended = forked("train.py", [*own, *few, *many, "baseline=false", out], tmp_path)
    assert_refused(ended, ("steps in a row", "not finite", "checkpoint", FILE), code=1)
    assert len(entries(tmp_path / "run")) == 10


def test_good_steps_are_not_looked_at(
    configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No file, and the search is not even called."""

    def never(*_: Any) -> None:
        raise AssertionError("a good step was searched")

    monkeypatch.setattr("polyqwen.training.callbacks.nonfinite_guard.find_nonfinite_rows", never)
    guard, _, _ = fit(configure, tmp_path, lambda _: None)
    assert guard.total == 0 and not (tmp_path / FILE).exists()
    assert not guard._records  # nothing of a step outlives it
