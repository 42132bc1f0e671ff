"""Callbacks in real fits of the tiny model: what is set when, logged where, and kept."""

import csv
import re
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode

from polyqwen.build.run import Parts, build
from polyqwen.build.trainer import build_trainer
from polyqwen.training.callbacks.forgetting import ForgettingMonitor
from polyqwen.training.callbacks.nonfinite_guard import NonFiniteGuard
from polyqwen.training.callbacks.schedules import TaskBoost
from polyqwen.weighting.by_loss.stw import StrategicTaskWeighting
from tests.conftest import Configure

QUIET = (
    "~callbacks.progress",
    "logger=csv",
    "trainer.enable_model_summary=false",
    "+trainer.enable_progress_bar=false",
    "callbacks.step_log.every=1",
)
SHORT = ("curriculum.total_steps=8", "curriculum.switch_step=4", "validate_every=4")


class Recorder(pl.Callback):
    """Notes what stands in trainer and model when the optimizer steps."""

    def __init__(self) -> None:
        self.seen: list[dict[str, Any]] = []

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        text = pl_module.losses["text_pair"]
        self.seen.append(
            {
                "step": pl_module.step,
                "clip": trainer.gradient_clip_val,
                "temperature": text.temperature,
                "score_weight": text.score_weight,
                "rank_weight": text.rank_weight,
                "boost": pl_module.boost["text_pair"],
                "base": pl_module.weighting.base.tolist(),
            }
        )


def fit(cfg: Any, *callbacks: pl.Callback) -> tuple[pl.Trainer, Parts]:
    parts = build(cfg)
    trainer = build_trainer(cfg)
    trainer.callbacks[:0] = callbacks
    trainer.fit(parts.model, datamodule=parts.data)
    return trainer, parts


def logged(tmp_path: Path) -> list[dict[str, str]]:
    with (tmp_path / "csv" / "metrics.csv").open() as file:
        return [{k: v for k, v in row.items() if v} for row in csv.DictReader(file)]


def test_schedules_act_in_their_step(configure: Configure) -> None:
    recorder = Recorder()
    fit(configure(*QUIET, *SHORT, "callbacks.boost.boost_steps=4"), recorder)
    seen = recorder.seen
    assert [s["step"] for s in seen] == list(range(8))
    assert [round(s["temperature"], 4) for s in seen[:5]] == [0.1, 0.0925, 0.085, 0.0775, 0.07]
    assert [s["score_weight"] for s in seen[:5]] == [0.5, 1.125, 1.75, 2.375, 3.0]
    assert [round(s["rank_weight"], 3) for s in seen[:5]] == [0.1, 0.325, 0.55, 0.775, 1.0]
    assert [round(s["clip"], 2) for s in seen[:5]] == [50.0, 43.41, 27.5, 11.59, 5.0]
    assert [s["boost"] for s in seen] == [1.0] * 4 + [2.0, 1.75, 1.5, 1.25]
    assert seen[7]["temperature"] == 0.07 and seen[7]["clip"] == 5.0


def test_one_key_ties_evaluation_logging_and_weight_updates(
    configure: Configure, tmp_path: Path
) -> None:
    quiet = [option for option in QUIET if "step_log" not in option]
    phases = ("curriculum.total_steps=15", "curriculum.switch_step=5")
    cfg = configure(*quiet, *phases, "eval=tied", "eval_steps=5", "data.eval_rows=8")
    _, parts = fit(cfg)
    assert parts.model.weighting.eval_steps == cfg.validate_every == 5
    rows = logged(tmp_path)
    for key in ("val/score", "train/loss", "weighting/base/ocr"):
        assert [row["step"] for row in rows if key in row] == ["5", "10", "15"], key


@pytest.mark.parametrize(
    ("shape", "expected"),
    [("step", [2.0, 2.0, 2.0, 1.0]), ("cosine", [2.0, 1.75, 1.25, 1.0])],
)
def test_the_boost_has_the_shape_that_is_asked_for(
    configure: Configure, shape: str, expected: list[float]
) -> None:
    recorder = Recorder()
    boost = ("callbacks.boost.boost_steps=3", f"callbacks.boost.shape={shape}")
    fit(configure(*QUIET, *SHORT, *boost), recorder)
    assert [s["boost"] for s in recorder.seen] == pytest.approx([1.0] * 4 + expected)


def test_phase_two_alone_reads_the_absolute_step(configure: Configure, tmp_path: Path) -> None:
    recorder = Recorder()
    short = ("curriculum.total_steps=8", "curriculum.switch_step=4", "validate_every=2")
    fit(configure("experiment=phase2", *QUIET, *short), recorder)
    assert [s["step"] for s in recorder.seen] == [4, 5, 6, 7]
    assert recorder.seen[0]["temperature"] == 0.07 and recorder.seen[0]["boost"] == 2.0
    rows = logged(tmp_path)
    rates = {r["step"]: float(r["schedule/lr_head"]) for r in rows if "schedule/lr_head" in r}
    assert rates["8"] < rates["5"] <= 1e-3  # warmup and cosine count from the run's start
    assert {r["step"] for r in rows if "val/score" in r} == {"6", "8"}


@pytest.mark.parametrize("accumulate", [1, 2])
def test_weights_are_updated_every_eval_steps(
    configure: Configure, tmp_path: Path, caplog: pytest.LogCaptureFixture, accumulate: int
) -> None:
    caplog.set_level("INFO")
    recorder = Recorder()
    cfg = configure(
        *QUIET,
        "curriculum.total_steps=20",
        "curriculum.switch_step=5",
        "weighting.eval_steps=5",
        "validate_every=100",
        f"trainer.accumulate_grad_batches={accumulate}",
    )
    _, parts = fit(cfg, recorder)
    lines = [r.message for r in caplog.records if r.message.startswith("task weights")]
    assert [int(re.search(r"step (\d+)", line).group(1)) for line in lines] == [5, 10, 15, 20]
    assert "static weights: 1 tasks seen, 2 needed" in lines[0]
    assert "inverse loss" in lines[1] and "→" in lines[1]
    changes = [
        a["step"]
        for a, b in zip(recorder.seen[1:], recorder.seen, strict=False)
        if a["base"] != b["base"]
    ]
    assert set(changes) <= {5, 10, 15} and {10, 15} <= set(changes)
    updates = [r for r in logged(tmp_path) if "weighting/base/ocr" in r]
    assert [r["step"] for r in updates] == ["5", "10", "15", "20"]
    assert float(updates[1]["weighting/rows/ocr"]) == 5 * 4 * accumulate
    assert_close(float(updates[-1]["weighting/base/ocr"]), parts.model.weighting.base[1].item())


def test_logged_weights_are_the_formula_of_the_logged_losses(
    configure: Configure, tmp_path: Path
) -> None:
    cfg = configure(
        *QUIET,
        "curriculum.total_steps=10",
        "curriculum.switch_step=0",
        "schedule_steps=5",
        "weighting.eval_steps=5",
        "weighting.rate_limit=null",
        "validate_every=100",
    )
    fit(cfg)
    update, *_ = [r for r in logged(tmp_path) if "weighting/base/ocr" in r]
    tasks = ("text_pair", "ocr", "vqa_single", "vqa_multi")
    losses = [float(update[f"weighting/mean_loss/{t}"]) for t in tasks]
    raw = [sum(losses) / 4 / loss * a for loss, a in zip(losses, (0.27, 1, 1, 1), strict=True)]
    for task, value in zip(tasks, raw, strict=True):
        expected = value * 4 / sum(raw)
        assert_close(float(update[f"weighting/base/{task}"]), expected, rtol=1e-5, atol=1e-6)
        rows = [r for r in logged(tmp_path) if f"weight/{task}" in r and r["step"] == "7"]
        boost = float(rows[0].get("schedule/boost_text_pair", 1)) if task == "text_pair" else 1.0
        assert_close(
            float(rows[0][f"weight/{task}"]), 0.95 * expected * boost, rtol=1e-4, atol=1e-5
        )


def test_every_step_logs_what_the_design_names(configure: Configure, tmp_path: Path) -> None:
    fit(configure(*QUIET, *SHORT))
    keys = set().union(*logged(tmp_path))
    for task in ("text_pair", "ocr", "vqa_single", "vqa_multi"):
        assert {f"train/loss/{task}", f"weight/{task}", f"train/share/{task}"} <= keys
        assert {f"val/{task}/recall@1", f"val/{task}/mrr", f"space/{task}/uniformity"} <= keys
        assert f"train/loss/{task}/info_nce" in keys
    assert {"train/loss/text_pair/rank", "train/loss/ocr/triplet", "val/text_pair/spearman"} <= keys
    assert {"schedule/temperature", "schedule/gradient_clip", "train/gradient_norm"} <= keys
    rows = [r for r in logged(tmp_path) if "train/share/ocr" in r]
    shares = [float(v) for k, v in rows[-1].items() if k.startswith("train/share/")]
    assert len(shares) == 4 and sum(shares) == pytest.approx(1.0, abs=1e-4)


class Poison(pl.Callback):
    """Makes the gradients of some steps NaN."""

    def __init__(self, steps: set[int]) -> None:
        self.steps = steps
        self.before: dict[str, torch.Tensor] = {}

    def on_after_backward(self, trainer: Any, pl_module: Any) -> None:
        if trainer.global_step in self.steps:
            pl_module.projection.alpha.grad.fill_(float("nan"))
            self.before = {n: p.detach().clone() for n, p in pl_module.named_parameters()}

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
        if self.before:
            for name, p in pl_module.named_parameters():
                assert torch.equal(p, self.before[name]), f"{name} moved in a skipped step"
            self.before = {}


def test_a_nan_gradient_skips_exactly_that_step(configure: Configure, tmp_path: Path) -> None:
    trainer, parts = fit(configure(*QUIET, *SHORT), Poison({2, 5}))
    guard = next(c for c in trainer.callbacks if isinstance(c, NonFiniteGuard))
    assert (guard.total, guard.in_a_row) == (2, 0) and trainer.global_step == 8
    assert all(torch.isfinite(p).all() for p in parts.model.parameters())
    counts = [r["train/skipped_steps"] for r in logged(tmp_path) if "train/skipped_steps" in r]
    assert [float(c) for c in counts] == [1.0, 2.0]


def test_nothing_but_nan_stops_the_run(configure: Configure) -> None:
    with pytest.raises(RuntimeError, match=r"3 steps in a row .* not finite"):
        fit(configure(*QUIET, *SHORT, "callbacks.nonfinite.max_bad_steps=3"), Poison(set(range(9))))


def test_a_run_that_ends_before_the_switch_forgot_nothing(configure: Configure) -> None:
    trainer, _ = fit(configure(*QUIET, *SHORT, "curriculum.switch_step=8"))
    monitor = next(c for c in trainer.callbacks if isinstance(c, ForgettingMonitor))
    assert monitor.at_switch is not None and not monitor.measured


def test_forgetting_is_the_fall_since_the_switch(configure: Configure, tmp_path: Path) -> None:
    trainer, _ = fit(configure(*QUIET, *SHORT))
    monitor = next(c for c in trainer.callbacks if isinstance(c, ForgettingMonitor))
    assert monitor.at_switch is not None and monitor.now is not None and monitor.measured
    falls = [
        r["val/text_pair/forgetting"] for r in logged(tmp_path) if "val/text_pair/forgetting" in r
    ]
    assert float(falls[-1]) == pytest.approx(monitor.at_switch - monitor.now)
    other = ForgettingMonitor("text_pair", "spearman", 4)
    other.load_state_dict(monitor.state_dict())
    assert other.state_dict() == monitor.state_dict()


def test_weighting_state_is_in_the_checkpoint(configure: Configure, tmp_path: Path) -> None:
    cfg = configure(*QUIET, *SHORT, "weighting.eval_steps=3", "validate_every=8")
    _, parts = fit(cfg)
    state = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    fresh = build(cfg).model
    assert isinstance(fresh.weighting, StrategicTaskWeighting)
    assert not torch.equal(fresh.weighting.base, state["weighting.base"])
    fresh.load_state_dict(state)
    assert_close(fresh.weighting.base, parts.model.weighting.base)
    assert fresh.weighting.sums.rows.tolist() == [8.0] * 4  # two steps into the third window


def test_callbacks_check_their_values() -> None:
    with pytest.raises(ValueError, match="factor"):
        TaskBoost("text_pair", 10, factor=0.0)
    with pytest.raises(ValueError, match="max_bad_steps"):
        NonFiniteGuard(0)


class NormCount(TorchDispatchMode):
    """Counts how often norms of gradients are taken."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        self.calls += function is torch.ops.aten._foreach_norm.Scalar
        return function(*args, **(kwargs or {}))


class Clipped(pl.Callback):
    """The norms of gradients when the optimizer has taken them, and what was measured before."""

    def __init__(self) -> None:
        self.norms: list[float] = []
        self.measured: list[float] = []

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
        squares = [p.grad.square().sum() for p in pl_module.parameters() if p.grad is not None]
        self.norms.append(float(torch.stack(squares).sum().sqrt()))
        self.measured.append(pl_module.gradient_norm.value)


@pytest.mark.parametrize("limit", [0.01, 1e6])
def test_gradients_are_measured_once_and_clipped_by_it(configure: Configure, limit: float) -> None:
    clipped = Clipped()
    schedule = [f"callbacks.gradient_clip.{end}={limit}" for end in ("start", "end")]
    cfg = configure(*QUIET, *SHORT, *schedule, "weighting=static")
    with NormCount() as count:
        fit(cfg, clipped)
    assert count.calls == len(clipped.norms) == 8
    assert all(0.1 < norm < 1e5 for norm in clipped.measured), clipped.measured
    expected = [min(limit, norm) for norm in clipped.measured]
    assert clipped.norms == pytest.approx(expected, rel=1e-4)


def test_without_a_guard_lightning_clips(configure: Configure) -> None:
    clipped = Clipped()
    schedule = [f"callbacks.gradient_clip.{end}=0.01" for end in ("start", "end")]
    fit(configure(*QUIET, *SHORT, *schedule, "callbacks.nonfinite=null"), clipped)
    assert clipped.norms == pytest.approx([0.01] * 8, rel=1e-3)
