"""Every strategy in a run: it trains, and a resumed run goes on as if it had never stopped."""

import csv
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from torch.testing import assert_close

from polyqwen.build.run import build
from polyqwen.build.trainer import build_trainer
from tests.conftest import Configure
from tests.ranks import on_ranks
from tests.training.test_resume import SHORT, Result, assert_same, fit
from tests.weighting.test_weighting_contract import CONSTANT, STRATEGIES, overrides_of

ACCUMULATED = ["famo", "gls", "equal_norm", "gradnorm", "stw_learned", "nnls_match", "lossrag"]
TRUSTING = {"stw_learned", "validation", "gate", "exp_gradient", "nnls_match", "lossrag"}
CASES = [(name, 1) for name in STRATEGIES] + [(name, 2) for name in ACCUMULATED]


@pytest.mark.parametrize(("name", "accumulate"), CASES)
def test_trains_and_resumes(
    configure: Configure, tmp_path: Path, name: str, accumulate: int
) -> None:
    options = [*overrides_of(name), f"trainer.accumulate_grad_batches={accumulate}"]
    if name in TRUSTING:
        options.append("data.trusted_rows=4")
    through = fit(configure, tmp_path / "a", weighting=options)
    resumed = fit(configure, tmp_path / "b", weighting=options, ckpt=tmp_path / "a" / "5.ckpt")
    assert_close(resumed.state, through.state, rtol=0.0, atol=0.0, equal_nan=True)
    assert resumed.losses == {i: v for i, v in through.losses.items() if i >= 5 * accumulate}
    assert all(map(torch.equal, resumed.optimizer, through.optimizer))
    base = through.state["weighting.base"]
    assert torch.isfinite(base).all()
    assert (base.std() > 1e-6) or name in CONSTANT


@pytest.mark.parametrize("name", ["equal_norm", "gls"])
def test_two_ranks_weigh_like_one_process(configure: Configure, tmp_path: Path, name: str) -> None:
    """All tasks from the first step on, so that its gradients hang on weights of that very step."""
    mixed = [*overrides_of(name), "curriculum.switch_step=0"]

    def run(rank: int) -> Result:
        rows = "data.rows_per_task=3"
        return fit(configure, tmp_path / "two", "trainer.devices=2", rows, weighting=mixed)

    one = fit(configure, tmp_path / "one", "data.rows_per_task=6", weighting=mixed)
    two = on_ranks(2, run)
    ours, theirs = (torch.cat([g.flatten() for g in r.gradients]) for r in (two[0], one))
    assert theirs.norm() > 0.1
    assert (ours - theirs).norm() < 1e-4 * theirs.norm()
    bases = [result.state["weighting.base"] for result in (*two, one)]
    assert torch.equal(bases[0], bases[1]) and bases[0].std() > 0.01
    assert torch.allclose(bases[0], bases[2], rtol=1e-4)


class Rates(pl.Callback):
    """Keeps the learning rate of the first group in each optimizer step, and after it."""

    def __init__(self) -> None:
        self.during: list[float] = []
        self.after: list[float] = []

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        trainer.optimizers[0].register_step_pre_hook(
            lambda optimizer, *_: self.during.append(optimizer.param_groups[0]["lr"])
        )

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        self.after.append(trainer.optimizers[0].param_groups[0]["lr"])


BETA_ON_RATES = [
    "weighting.beta.mode=learning_rate",
    "weighting.beta.foundation=1.5",
    "weighting.beta.balance=0.5",
    "weighting.eval_steps=2",
    "weighting.min_samples=1",
]


def test_beta_on_the_learning_rate_acts_in_every_step(configure: Configure, tmp_path: Path) -> None:
    rates = {}
    for mode in ("loss", "learning_rate"):
        cfg = configure(*SHORT, *BETA_ON_RATES, f"weighting.beta.mode={mode}")
        data, model = build(cfg)
        trainer, rates[mode] = build_trainer(cfg), Rates()
        trainer.callbacks.append(rates[mode])
        trainer.fit(model, datamodule=data)
    plain, scaled = rates["loss"].during, rates["learning_rate"].during
    assert len(plain) == 8 and min(plain) > 0
    assert scaled == [rate * (1.5 if step < 3 else 0.5) for step, rate in enumerate(plain)]
    assert rates["learning_rate"].after == rates["loss"].after  # the schedule's own
    with (tmp_path / "csv" / "metrics.csv").open() as file:
        logged = [row for row in csv.DictReader(file) if row.get("schedule/lr_backbone")]
    after = rates["learning_rate"].after
    for row in logged:  # of the step that comes next
        step = int(row["step"])
        rate = after[step - 1] * (1.5 if step < 3 else 0.5)
        assert float(row["schedule/lr_backbone"]) == pytest.approx(rate)


@pytest.mark.parametrize(
    "options",
    [
        BETA_ON_RATES,
        [*BETA_ON_RATES, "weighting.beta.mode=alpha", "weighting.beta.tasks=[text_pair]"],
        [*BETA_ON_RATES, "weighting.fallback=calibrated", "weighting.calibration_steps=3"],
    ],
    ids=["learning_rate", "alpha", "calibrated"],
)
def test_what_stw_can_do_resumes_exactly(
    configure: Configure, tmp_path: Path, options: list[str]
) -> None:
    through = fit(configure, tmp_path / "a", weighting=options)
    for step in (1, 3, 5):
        ckpt = tmp_path / "a" / f"{step}.ckpt"
        resumed = fit(configure, tmp_path / f"b{step}", weighting=options, ckpt=ckpt)
        assert_same(resumed, through, step)


def test_calibration_on_two_ranks_is_that_of_one_process(
    configure: Configure, tmp_path: Path
) -> None:
    options = ["weighting.fallback=calibrated", "weighting.calibration_steps=3"]

    def run(rank: int) -> Result:
        rows = "data.rows_per_task=3"
        return fit(configure, tmp_path / "two", "trainer.devices=2", rows, weighting=options)

    one = fit(configure, tmp_path / "one", "data.rows_per_task=6", weighting=options)
    two = on_ranks(2, run)
    for name in ("total", "rows", "steps_seen"):
        ours, ranks = (
            one.state[f"weighting.calibration.{name}"],
            [result.state[f"weighting.calibration.{name}"] for result in two],
        )
        assert torch.equal(ranks[0], ranks[1]) and bool((ours > 0).all())
        assert torch.allclose(ranks[0].double(), ours.double(), rtol=1e-4)
