"""Forgetting is measured in every run with a switch, resumed or not, and costs it nothing."""

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch

from polyqwen.build.run import build
from polyqwen.build.trainer import build_trainer
from polyqwen.training.callbacks.forgetting import ForgettingMonitor
from polyqwen.training.callbacks.resume import DueValidation
from tests.conftest import Configure
from tests.ranks import on_ranks

SHORT = [
    *("curriculum.switch_step=3", "curriculum.total_steps=7", "logger=csv"),
    *("callbacks.progress=null", "callbacks.last=null", "callbacks.best=null"),
    *("trainer.enable_model_summary=false", "+trainer.enable_progress_bar=false"),
    *("weighting=stw", "weighting.eval_steps=2", "weighting.min_samples=1"),
    "+model.encoder.config.text_config.attention_dropout=0.2",
]
LATE = "validate_every=100"


class Watch(pl.Callback):
    """Notes when it is validated, and saves some steps before their validation."""

    def __init__(self, out: Path, saved: tuple[int, ...] = ()) -> None:
        self.out, self.saved = out, saved
        self.validated: list[int] = []

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        self.validated.append(pl_module.step)

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, index: int
    ) -> None:
        if pl_module.step in self.saved:
            trainer.save_checkpoint(self.out / f"{pl_module.step}.ckpt")


def fit(
    configure: Configure,
    out: Path,
    *overrides: str,
    ckpt: Path | None = None,
    saved: tuple[int, ...] = (),
) -> tuple[list[int], ForgettingMonitor, dict[str, torch.Tensor]]:
    """Steps of validations, what was forgotten, and the weights at the end."""
    out.mkdir(parents=True, exist_ok=True)
    cfg = configure(*SHORT, f"run_dir={out}", *overrides)
    pl.seed_everything(0, workers=True, verbose=False)
    data, model = build(cfg)
    trainer, watch = build_trainer(cfg), Watch(out, saved)
    trainer.callbacks.append(watch)
    trainer.fit(model, datamodule=data, ckpt_path=ckpt)
    monitor = next(c for c in trainer.callbacks if isinstance(c, ForgettingMonitor))
    return watch.validated, monitor, {k: v.clone() for k, v in model.state_dict().items()}


@pytest.mark.parametrize("batches", [1, 2])
def test_the_switch_and_the_end_are_validated_whatever_the_interval(
    configure: Configure, tmp_path: Path, batches: int
) -> None:
    more = f"trainer.accumulate_grad_batches={batches}"
    validated, monitor, _ = fit(configure, tmp_path / "late", LATE, more)
    assert validated == [3, 7] and monitor.measured
    assert monitor.at_switch is not None and monitor.now is not None
    often, _, _ = fit(configure, tmp_path / "often", "validate_every=2", more)
    assert often == [2, 3, 4, 6, 7]
    once, _, _ = fit(configure, tmp_path / "once", "validate_every=3", more)
    assert once == [3, 6, 7]  # where both are due it is one


def test_weights_are_those_of_a_run_without_these_validations(
    configure: Configure, tmp_path: Path
) -> None:
    validated, _, with_them = fit(configure, tmp_path / "a", LATE)
    cfg = configure(*SHORT, LATE, f"run_dir={tmp_path / 'b'}")
    pl.seed_everything(0, workers=True, verbose=False)
    data, model = build(cfg)
    trainer, watch = build_trainer(cfg), Watch(tmp_path)
    due = next(c for c in trainer.callbacks if isinstance(c, DueValidation))
    due.steps = frozenset()
    trainer.callbacks.append(watch)
    trainer.fit(model, datamodule=data)
    assert validated == [3, 7] and watch.validated == [7]  # the interval is at most the run
    assert all(torch.equal(value, with_them[k]) for k, value in model.state_dict().items())


def test_a_run_resumed_at_the_switch_or_around_it_measures_the_same(
    configure: Configure, tmp_path: Path
) -> None:
    _, through, weights = fit(configure, tmp_path / "a", LATE, saved=(2, 3, 4))
    expected = {2: [3, 7], 3: [3, 7], 4: [7]}  # step 3 was saved before its validation
    for step, steps in expected.items():
        ckpt = tmp_path / "a" / f"{step}.ckpt"
        validated, monitor, ends = fit(configure, tmp_path / f"b{step}", LATE, ckpt=ckpt)
        assert validated == steps
        assert monitor.state_dict() == through.state_dict()
        assert all(torch.equal(value, weights[name]) for name, value in ends.items())


@pytest.mark.parametrize(
    "overrides",
    [
        ("curriculum=single_phase", "curriculum.total_steps=7"),
        ("curriculum=phase2", "curriculum.switch_step=3", "curriculum.total_steps=7"),
        ("curriculum.switch_step=7", "curriculum.total_steps=7"),
        ("callbacks.forgetting=null",),
        ("task=[ocr,vqa_single]",),
    ],
    ids=str,
)
def test_nothing_is_validated_beyond_the_interval_without_a_switch_or_a_task_to_forget(
    configure: Configure, overrides: tuple[str, ...]
) -> None:
    trainer = build_trainer(configure(LATE, *overrides))
    due = next(c for c in trainer.callbacks if isinstance(c, DueValidation))
    assert due.steps == frozenset()


def test_two_ranks_validate_together(configure: Configure, tmp_path: Path) -> None:
    def run(rank: int) -> tuple[list[int], dict[str, Any]]:
        validated, monitor, _ = fit(configure, tmp_path / "two", LATE, "trainer.devices=2")
        return validated, monitor.state_dict()

    first, second = on_ranks(2, run)
    assert first == second and first[0] == [3, 7] and first[1]["passed"]
