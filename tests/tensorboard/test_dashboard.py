"""What a run leaves for TensorBoard, read back from its event files."""

import re
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.plugins.hparams import api_pb2, metadata

from polyqwen.build.run import Parts, build
from polyqwen.build.trainer import build_trainer
from polyqwen.config.identity import hyperparameters
from polyqwen.metrics.similarity import matching_cosines
from polyqwen.tensorboard.dashboard import Dashboard
from polyqwen.tensorboard.galleries import Galleries
from polyqwen.tensorboard.layout import dashboard_layout
from polyqwen.tensorboard.similarity_histograms import SimilarityHistograms
from polyqwen.training.evaluation import embed_view
from tests.conftest import Configure

TASKS = ("text_pair", "ocr", "vqa_single", "vqa_multi")
SHORT = (
    "~callbacks.progress",
    "trainer.enable_model_summary=false",
    "+trainer.enable_progress_bar=false",
    "callbacks.step_log.every=1",
    "callbacks.throughput.every=1",
    "callbacks.gradient_conflicts.every=1",
    "curriculum.total_steps=4",
    "curriculum.switch_step=2",
    "validate_every=2",
)


class Failure(pl.Callback):
    """Breaks the run in its second step."""

    def on_train_batch_start(self, trainer: Any, *_: Any) -> None:
        if trainer.global_step == 1:
            raise RuntimeError("broken on purpose")


def events(folder: Path) -> EventAccumulator:
    keep_all = dict.fromkeys(("tensors", "images", "histograms"), 0)
    return EventAccumulator(str(folder), size_guidance=keep_all).Reload()


def text(found: EventAccumulator, tag: str) -> str:
    return found.Tensors(f"{tag}/text_summary")[-1].tensor_proto.string_val[0].decode()


def session(found: EventAccumulator, tag: str) -> Any:
    content = found.SummaryMetadata(tag).plugin_data.content
    if tag == metadata.SESSION_START_INFO_TAG:
        return metadata.parse_session_start_info_plugin_data(content)
    return metadata.parse_session_end_info_plugin_data(content)


@pytest.fixture(scope="module")
def finished() -> dict[str, Any]:
    """Keeps the run below, so that all tests read the same one."""
    return {}


@pytest.fixture
def run(configure: Configure, tmp_path: Path, finished: dict[str, Any]) -> dict[str, Any]:
    """One two-phase run as `train` does it: untrained test, fit, test."""
    if not finished:
        cfg = configure(*SHORT, "callbacks.galleries.rows=2", "optimizer.head_lr=0.002")
        parts = build(cfg)
        trainer = build_trainer(cfg)
        trainer.test(parts.model, datamodule=parts.data, verbose=False)
        trainer.fit(parts.model, datamodule=parts.data)
        trainer.test(parts.model, datamodule=parts.data, verbose=False)
        finished |= {"found": events(tmp_path), "test": dict(trainer.callback_metrics)}
        finished |= {"folder": tmp_path, "parts": parts}
    return finished


def test_every_pattern_of_the_layout_finds_a_logged_scalar(run: dict[str, Any]) -> None:
    found: EventAccumulator = run["found"]
    (event,) = found.Tensors("custom_scalars__config__")
    layout = layout_pb2.Layout.FromString(event.tensor_proto.string_val[0])
    charts = {c.title: list(c.multiline.tag) for group in layout.category for c in group.chart}
    logged = found.Tags()["scalars"]
    assert len(charts) > 15
    for title, patterns in charts.items():
        for pattern in patterns:
            assert [tag for tag in logged if re.match(pattern, tag)], (title, pattern)
    weights = [t for p in charts["weights λ · boost, as applied"] for t in logged if re.match(p, t)]
    assert sorted(weights) == sorted(f"weight/{task}" for task in TASKS)
    parts = [t for t in logged if re.match(charts["ocr and its parts"][0], t)]
    assert {"train/loss/ocr", "train/loss/ocr/info_nce", "train/loss/ocr/triplet"} == set(parts)
    assert not [
        t for p in charts["all tasks"] for t in logged if re.match(p, t) and t.count("/") > 2
    ]
    schedules = {tag.removeprefix("schedule/") for tag in logged if tag.startswith("schedule/")}
    rates = {name for name in schedules if name.startswith("lr_")}
    assert rates and schedules - rates == set(charts) & schedules


def test_the_papers_gap_lies_beside_the_measured_one(run: dict[str, Any]) -> None:
    found: EventAccumulator = run["found"]
    logged = {tag for tag in found.Tags()["scalars"] if tag.startswith("reference/gap/")}
    assert logged == {"reference/gap/paper_5.1_low", "reference/gap/paper_5.1_high"}
    (first, last) = found.Scalars("reference/gap/paper_5.1_low")
    assert (first.step, first.value) == (0, pytest.approx(0.01)) and last.step == 4
    layout = dashboard_layout({"a": "pairs"}, reference=["paper_5.1_low"])["embedding space"]
    for title, measured in (("training batches", "train/gap/a"), ("validation rows", "val/a/gap")):
        patterns = layout[f"gap of {title}, and the paper's"][1]
        for tag in (measured, "reference/gap/paper_5.1_low"):
            assert [p for p in patterns if re.match(p, tag)], tag
    assert not [
        title for title in dashboard_layout({"a": "labels"})["embedding space"] if "gap" in title
    ]


def test_patterns_are_anchored_and_escaped() -> None:
    layout = dashboard_layout({"a.b": "pairs", "a": "scored"}, ["lr_head", "temperature"])
    (dotted, plain) = layout["losses"]["all tasks"][1]
    assert re.match(dotted, "train/loss/a.b") and not re.match(dotted, "train/loss/axb")
    assert not re.match(plain, "train/loss/a/triplet") and not re.match(plain, "train/loss/a.b")
    assert set(layout["schedules"]) == {"temperature", "learning rates"}
    assert "gradient norms" not in layout["task weights"]
    assert "gradient norms" in dashboard_layout({"a": "pairs"}, gradients=True)["task weights"]
    assert "scored pairs" not in dashboard_layout(
        {"a": "pairs"}
    ) and "schedules" not in dashboard_layout({"a": "pairs"})


def test_the_hparams_row_has_the_final_metrics(run: dict[str, Any]) -> None:
    found: EventAccumulator = run["found"]
    given = session(found, metadata.SESSION_START_INFO_TAG).hparams
    assert given["optimizer.head_lr"].number_value == 0.002
    assert given["rows_per_step"].number_value == 16  # four of each task
    assert given["model"].string_value and given["weighting"].string_value
    assert session(found, metadata.SESSION_END_INFO_TAG).status == api_pb2.STATUS_SUCCESS
    ends = {tag for tag in found.Tags()["scalars"] if tag.startswith("end/")}
    others = {f"end/{task}/recall@1" for task in TASKS[1:]}
    assert ends == {"end/score", "end/text_pair/spearman"} | others
    for tag in ends:
        (event,) = found.Scalars(tag)  # once: not for the untrained model
        assert event.step == 4
        assert event.value == pytest.approx(float(run["test"][tag.replace("end/", "test/")]))
    assert "val/score" in found.Tags()["scalars"] and "hp_metric" not in found.Tags()["scalars"]
    assert not [p for p in run["folder"].rglob("events.out.*") if p.parent != run["folder"]]


def test_the_configuration_is_there_as_text(run: dict[str, Any]) -> None:
    written = text(run["found"], "config")
    assert written.startswith("```yaml\n") and written.endswith("\n```")
    assert "head_lr: 0.002" in written and "${" not in written


def test_histograms_hold_the_validation_cosines(run: dict[str, Any]) -> None:
    found: EventAccumulator = run["found"]
    for task in TASKS:
        for kind in ("matching", "non_matching"):
            drawn = found.Histograms(f"similarity/{task}/{kind}")
            assert [event.step for event in drawn] == [2, 4]
            values = drawn[-1].histogram_value
            assert values.num > 10 and -1 <= values.min <= values.max <= 1.0001
    means = {}
    for kind in ("matching", "non_matching"):
        values = found.Histograms(f"similarity/ocr/{kind}")[-1].histogram_value
        means[kind] = values.sum / values.num
    gap = means["matching"] - means["non_matching"]
    assert gap == pytest.approx(found.Scalars("val/ocr/gap")[-1].value, abs=0.01)


def test_galleries_are_images_and_a_table(run: dict[str, Any]) -> None:
    found: EventAccumulator = run["found"]
    for task in TASKS[1:]:
        assert [event.step for event in found.Images(f"gallery/{task}")] == [2, 4]
        (image,) = found.Images(f"gallery/{task}/test")
        assert image.step == 4 and image.width == 700 and image.height > 300
    table = text(found, "gallery/text_pair/test")
    assert "text_pair, test: hardest queries at step 4" in table
    assert "| query | right document | 1 | 2 |" in table and len(table.splitlines()) == 6


def test_embeddings_are_let_go(run: dict[str, Any]) -> None:
    parts: Parts = run["parts"]
    assert parts.model.evaluated == {}


def test_a_run_that_fails_says_so(configure: Configure, tmp_path: Path) -> None:
    cfg = configure(*SHORT)
    parts = build(cfg)
    trainer = build_trainer(cfg)
    trainer.callbacks[:0] = [Failure()]
    with pytest.raises(RuntimeError, match="on purpose"):
        trainer.fit(parts.model, datamodule=parts.data)
    found = events(tmp_path)
    assert session(found, metadata.SESSION_START_INFO_TAG).hparams["seed"].number_value == 0
    assert session(found, metadata.SESSION_END_INFO_TAG).status == api_pb2.STATUS_FAILURE
    assert not [tag for tag in found.Tags()["scalars"] if tag.startswith("end/")]


def test_without_tensorboard_nothing_is_written(configure: Configure, tmp_path: Path) -> None:
    cfg = configure(*SHORT, "logger=csv")
    assert cfg.callbacks.dashboard and cfg.callbacks.galleries and cfg.callbacks.histograms
    parts = build(cfg)
    trainer = build_trainer(cfg)
    trainer.fit(parts.model, datamodule=parts.data)
    trainer.test(parts.model, datamodule=parts.data, verbose=False)
    assert not list(tmp_path.rglob("events.out.*"))
    assert (tmp_path / "csv" / "metrics.csv").is_file()


def test_hyperparameters_are_a_handful_and_the_command_line(configure: Configure) -> None:
    fixed = hyperparameters(configure(), [])
    assert set(fixed) == {
        "seed",
        "optimizer.backbone_lr",
        "optimizer.head_lr",
        "curriculum.total_steps",
        "model",
        "weighting",
    }
    overrides = [
        "weighting=static",
        "seed=3",
        "+trainer.limit=0.5",
        "task=[ocr]",
        "~callbacks.progress",
        "run_dir=/x",
        "hydra.verbose=true",
        "optimizer.betas=[0.8,0.9]",
    ]
    given = hyperparameters(configure("seed=3", "+trainer.limit=0.5"), overrides)
    assert {k: v for k, v in given.items() if fixed.get(k) != v} == {
        "weighting": "static",
        "seed": 3,
        "trainer.limit": 0.5,
        "task": "[ocr]",
        "optimizer.betas": "[0.8,0.9]",
    }


def test_metrics_keep_what_they_were_computed_from(parts: Parts) -> None:
    view = embed_view(parts.model, parts.data.eval_loader("dev", ("ocr", "none")))
    metrics = parts.model.metric("ocr")
    metrics.update(view.pairs)
    metrics.compute()
    assert metrics.computed_from is not None
    assert torch.equal(matching_cosines(metrics.computed_from), matching_cosines(view.pairs))
    metrics.reset()
    assert metrics.computed_from is None


def test_callbacks_check_their_values() -> None:
    with pytest.raises(ValueError, match=r"galleries\.rows"):
        Galleries(rows=0)
    with pytest.raises(ValueError, match=r"histograms\.limit"):
        SimilarityHistograms(limit=0)
    assert Dashboard().hyperparameters == {}
