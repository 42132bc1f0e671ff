"""Sharded training on two processes: the steps of one process, one whole checkpoint, resuming."""

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from torch.testing import assert_close

from polyqwen.build.run import build
from polyqwen.build.trainer import build_trainer, check_sharding
from polyqwen.config.check import resolved
from polyqwen.config.errors import ConfigError
from polyqwen.training.callbacks.nonfinite_guard import NonFiniteGuard
from tests.conftest import Configure
from tests.ranks import on_ranks
from tests.training.test_callbacks import QUIET
from tests.training.test_nonfinite import ACCUMULATE, Plant, in_the_hidden_states, no_loss_in

STEPS = 4
OPTIONS = [
    *QUIET,
    f"curriculum.total_steps={STEPS}",
    "curriculum.switch_step=2",
    "validate_every=2",
    "weighting.eval_steps=2",
    "large_batch=off",
    "data.chunk_tokens=48",  # several chunks, and not as many on each rank
]


class Steps(pl.Callback):
    """Loss, gradient norm and number of chunks of every step; what lies in the optimizer."""

    def __init__(self) -> None:
        self.losses: list[float] = []
        self.norms: list[float] = []
        self.chunks: list[int] = []
        self.held = 0

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.losses.append(float(pl_module.record.total))
        self.norms.append(float(pl_module.gradient_norm.value))
        self.chunks.append(len(batch.chunks))
        states = [s["exp_avg"] for s in trainer.optimizers[0].state.values()]
        if trainer.global_step == 2:
            trainer.save_checkpoint(Path(trainer.default_root_dir) / "half.ckpt", False)
        self.held = sum(getattr(s, "to_local", lambda s=s: s)().numel() for s in states)


def fit(rank: int, cfg: Any, ckpt: Path | None = None) -> dict[str, Any]:
    """A whole run on this rank."""
    steps = Steps()
    torch.manual_seed(0)
    parts = build(cfg)
    trainer = build_trainer(cfg)
    trainer.callbacks.append(steps)
    trainer.test(parts.model, datamodule=parts.data, verbose=False)  # weights gathered, let go of
    trainer.fit(parts.model, datamodule=parts.data, ckpt_path=ckpt, weights_only=True)
    trainer.save_checkpoint(Path(cfg.run_dir) / "end.ckpt", weights_only=False)
    return {
        "losses": steps.losses,
        "norms": steps.norms,
        "chunks": steps.chunks,
        "held": steps.held,
        "score": float(trainer.callback_metrics["val/score"]),
    }


def end(folder: Path) -> dict[str, torch.Tensor]:
    return torch.load(folder / "end.ckpt", weights_only=True)["state_dict"]


@pytest.mark.slow
def test_two_sharded_processes_make_the_steps_of_one(configure: Configure, tmp_path: Path) -> None:
    one = configure(*OPTIONS, "data.rows_per_task=8", f"run_dir={tmp_path / 'one'}")
    whole = fit(0, one)
    two = ["trainer=fsdp", "trainer.devices=2", "trainer.accelerator=cpu"]
    cfg = configure(*OPTIONS, *two, f"run_dir={tmp_path / 'two'}")
    ranks = on_ranks(2, fit, cfg)
    assert ranks[0]["chunks"] != ranks[1]["chunks"]
    for rank in ranks:
        assert rank["losses"] == pytest.approx(whole["losses"], rel=1e-3)
        assert rank["norms"] == pytest.approx(whole["norms"], rel=1e-2)
        assert rank["score"] == pytest.approx(whole["score"], abs=1e-3)
        assert rank["held"] < 0.6 * whole["held"]
    assert ranks[0]["norms"][0] == pytest.approx(whole["norms"][0], rel=1e-5)
    expected, weights = end(tmp_path / "one"), end(tmp_path / "two")
    assert weights.keys() == expected.keys()
    for name, value in weights.items():
        assert type(value) is torch.Tensor
        value = value.reshape(expected[name].shape)  # scalars are vectors of one
        assert_close(value, expected[name], rtol=1e-2, atol=2e-3)

    less = configure(*OPTIONS, *two, "large_batch=checkpoint", f"run_dir={tmp_path / 'less'}")
    recomputed = on_ranks(2, fit, less)[0]
    assert recomputed["losses"] == pytest.approx(ranks[0]["losses"], rel=1e-3)
    assert recomputed["norms"] == pytest.approx(ranks[0]["norms"], rel=1e-2)

    again = configure(*OPTIONS, *two, f"run_dir={tmp_path / 'again'}")
    resumed = on_ranks(2, fit, again, tmp_path / "two" / "half.ckpt")
    assert resumed[0]["losses"] == ranks[0]["losses"][2:]
    for name, value in end(tmp_path / "again").items():
        assert torch.equal(value, weights[name]), name


@pytest.mark.slow
def test_a_sharded_micro_batch_that_is_not_finite_costs_itself(
    configure: Configure, tmp_path: Path
) -> None:
    """As one whose loss is zero, bit for bit: the gathered weights' gradients are masked."""
    two = ["trainer=fsdp", "trainer.devices=2", "trainer.accelerator=cpu", "weighting=static"]
    cfg = configure(*OPTIONS, *two, ACCUMULATE, f"run_dir={tmp_path}")

    def run(rank: int, plant: Plant) -> tuple[int, dict[str, torch.Tensor]]:
        torch.manual_seed(0)
        parts = build(cfg)
        trainer = build_trainer(cfg)
        plant(parts.model)
        trainer.fit(parts.model, datamodule=parts.data)
        (guard,) = [c for c in trainer.callbacks if isinstance(c, NonFiniteGuard)]
        assert guard.total == 0
        gradients = parts.model.state_dict()
        return guard.dropped, {n: v.full_tensor() for n, v in gradients.items() if "encoder" in n}

    dropped, weights = on_ranks(2, run, in_the_hidden_states(3))[0]
    none, expected = on_ranks(2, run, no_loss_in(3))[0]
    assert (dropped, none) == (1, 0) and weights
    for name, value in weights.items():
        assert torch.equal(value, expected[name]), name


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["large_batch=cached"], r"large_batch\.mode: cached is not shown to work"),
        (["weighting=mgda"], r"weighting\.gram: gradients of single tasks"),
        (["weighting=validation", "data.trusted_rows=2"], "trusted rows are not looked at"),
    ],
)
def test_what_was_not_shown_to_work_is_refused(
    configure: Configure, monkeypatch: pytest.MonkeyPatch, overrides: list[str], message: str
) -> None:
    values = resolved(configure("trainer=fsdp", "large_batch=off", *overrides))
    with pytest.raises(ConfigError, match=r"trainer\.devices above 1"):
        check_sharding(values)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match=message):
        check_sharding(values)
    check_sharding(resolved(configure("trainer=fsdp", "large_batch=off")))
