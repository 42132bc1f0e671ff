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


MODES = {
    "plain": (),
    "accumulation": ("trainer.accumulate_grad_batches=2",),
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
    (line,) = [r.message for r in caplog.records if "skipped" in r.message]
    assert f"ocr rows {model.planted[0]} of rank 0: embedding not finite" in line


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


@pytest.mark.parametrize(
    "mode", [(), ("large_batch=cached",), ("weighting=mgda",)], ids=["plain", "cached", "mgda"]
)
def test_one_rank_only(configure: Configure, tmp_path: Path, mode: tuple[str, ...]) -> None:
    def run(rank: int) -> tuple[int, list[int], dict[str, Tensor]]:
        plant = in_an_embedding("ocr", 4, 1)
        two = ("trainer.devices=2", *mode)
        guard, model, _ = fit(configure, tmp_path, plant if rank else lambda _: None, *two)
        assert_finite(model)
        weights = {n: p.detach().clone() for n, p in model.named_parameters()}
        return guard.total, getattr(model, "planted", []), weights

    (first, _, ours), (second, planted, theirs) = on_ranks(2, run)
    assert first == second == 1
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())
    (bad,) = entries(tmp_path)[0]["rows"]
    assert (bad["rank"], bad["task"], bad["rows"]) == (1, "ocr", planted)


@pytest.mark.parametrize("mode", [(), ("trainer.accumulate_grad_batches=2",)], ids=str)
def test_bad_steps_without_end_leave_the_last_good_checkpoint(
    configure: Configure, tmp_path: Path, mode: tuple[str, ...]
) -> None:
    last = "callbacks.last={_target_: lightning.pytorch.callbacks.ModelCheckpoint, "
    last += f"dirpath: {tmp_path}/checkpoints, filename: last, every_n_train_steps: 2, "
    last += "enable_version_counter: false}"
    forever = in_a_loss("ocr", range(4, 99))
    limit = "callbacks.nonfinite.max_bad_steps=3"
    guard, model, error = fit(configure, tmp_path, forever, limit, last, *mode)
    assert guard.in_a_row == 3 and "3 steps in a row had gradients that are not finite" in str(
        error
    )
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
