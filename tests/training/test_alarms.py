"""Alarms: quiet in a healthy run, each heard once when its trouble is planted."""

from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import pytest
import torch
from torch import Tensor

from polyqwen.build.run import build
from polyqwen.build.trainer import build_trainer
from polyqwen.training.callbacks.alarms import LEAST, Alarms
from polyqwen.training.module import EmbeddingModule
from tests.conftest import Configure
from tests.training.test_resume import SHORT

LOOKS = ["curriculum.total_steps=18", "callbacks.alarms.every=1", "callbacks.alarms.patience=2"]
Plant = Callable[[EmbeddingModule], None]


def spiked(model: EmbeddingModule) -> None:
    """Text pairs' loss is ten times as large at steps 14 and 15."""

    def spoil(loss: Any, given: Any, output: Any) -> Any:
        times = 10.0 if model.training and model.step in (14, 15) else 1.0
        return output._replace(total=output.total * times)

    model.losses["text_pair"].register_forward_hook(spoil)


def collapsed(model: EmbeddingModule) -> None:
    """From step 6 on all contents have nearly the same embedding."""
    plain = model.project

    def project(pooled: Tensor, tasks: Any) -> Any:
        features = plain(pooled, tasks)
        if model.step < 6:
            return features
        one = torch.ones_like(features.embeddings) + 1e-3 * features.embeddings
        return features._replace(embeddings=torch.nn.functional.normalize(one, dim=-1))

    model.project = project  # type: ignore[method-assign]


def warned(
    configure: Configure,
    caplog: pytest.LogCaptureFixture,
    plant: Plant | None,
    overrides: Sequence[str] = (),
) -> tuple[list[str], Alarms]:
    data, model = build(configure(*SHORT, *LOOKS, *overrides))
    trainer = build_trainer(configure(*SHORT, *LOOKS, *overrides))
    if plant is not None:
        plant(model)
    trainer.fit(model, datamodule=data)
    alarms = next(c for c in trainer.callbacks if isinstance(c, Alarms))
    return [r.message for r in caplog.records if r.name.endswith("alarms")], alarms


# a dozen steps do not draw apart what random weights embed: the gap's alarm is off but where it is
# what is tested
OFF = ["callbacks.alarms.min_gap=-2"]


def test_a_healthy_run_is_quiet(configure: Configure, caplog: pytest.LogCaptureFixture) -> None:
    lines, alarms = warned(configure, caplog, None, OFF)
    assert not lines and not alarms.ringing
    assert len(alarms.usual["text_pair"]) == 18 > LEAST  # it has looked


def test_a_spike_is_heard_once(
    configure: Configure, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    (line,), alarms = warned(configure, caplog, spiked, OFF)
    assert line.startswith("step 15: the loss of text_pair was ")
    assert "usually" in line and "learning rate" in line
    assert not alarms.ringing  # over again
    usual = alarms.usual["text_pair"]
    assert max(usual) < 4 * median(usual)  # a spike does not become usual
    assert "alarm/spike/text_pair" in (tmp_path / "csv" / "metrics.csv").read_text()


def test_a_collapse_is_heard_by_gap_and_by_rank(
    configure: Configure, caplog: pytest.LogCaptureFixture
) -> None:
    lines, alarms = warned(configure, caplog, collapsed)
    collapse = [line for line in lines if line.startswith("step 7: ")]
    assert any("embeddings collapse (effective rank 1.0" in line for line in collapse)
    gaps = [line for line in lines if "look alike (similarity gap" in line]
    assert {line.split(" of ")[1].split(" look")[0] for line in gaps} == {
        *("text_pair", "ocr", "vqa_single", "vqa_multi")
    }
    assert {"rank", "gap/ocr"} <= set(alarms.ringing)
    assert sum("effective rank" in line for line in lines) == 1  # said once, though it lasts


def test_random_weights_have_time(configure: Configure, caplog: pytest.LogCaptureFixture) -> None:
    lines, _ = warned(configure, caplog, collapsed, ["callbacks.alarms.patience=100"])
    assert not lines


def test_what_is_usual_is_kept(configure: Configure, caplog: pytest.LogCaptureFixture) -> None:
    _, alarms = warned(configure, caplog, None, OFF)
    fresh = Alarms()
    fresh.load_state_dict(alarms.state_dict())
    assert fresh.state_dict() == alarms.state_dict() and fresh.usual and fresh.since["ocr"] == 4


def test_wrong_thresholds_are_refused() -> None:
    for name, value in (("every", 0), ("spike", 1.0), ("min_rank", 0.5), ("patience", -1)):
        with pytest.raises(ValueError, match=rf"alarms\.{name} must be"):
            Alarms(**{name: value})  # type: ignore[arg-type]
