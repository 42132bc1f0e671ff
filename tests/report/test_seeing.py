"""What callbacks leave to be looked at: conflicts, throughput, the cloud, reasons, galleries."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from google.protobuf import text_format
from PIL import Image
from tensorboard.plugins.projector.projector_config_pb2 import ProjectorConfig

from polyqwen.build.run import Parts, build
from polyqwen.build.trainer import build_trainer
from polyqwen.report.gallery import GalleryRow, Result, write_galleries
from polyqwen.runs.run_folder import read_json
from polyqwen.tensorboard.gradient_conflicts import GradientConflicts, conflict_image
from polyqwen.tensorboard.projector import Projector
from polyqwen.tensorboard.projector_files import Cloud, sprite, thumbnail, write_cloud
from polyqwen.training.callbacks.timing import Throughput
from polyqwen.weighting.weight_update import WeightUpdate, append_update, read_updates
from tests.conftest import Configure

TASKS = ("text_pair", "ocr", "vqa_single", "vqa_multi")
SHORT = (
    "~callbacks.progress",
    "trainer.enable_model_summary=false",
    "+trainer.enable_progress_bar=false",
    "callbacks.step_log.every=1",
    "curriculum.total_steps=6",
    "curriculum.switch_step=2",
    "validate_every=3",
)


def fit(cfg: Any) -> tuple[Any, Parts]:
    torch.manual_seed(0)
    parts = build(cfg)
    trainer = build_trainer(cfg)
    trainer.fit(parts.model, datamodule=parts.data)
    return trainer, parts


def logged(folder: Path) -> dict[str, dict[int, float]]:
    with (folder / "csv" / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    found: dict[str, dict[int, float]] = {}
    for row in rows:
        for key, cell in row.items():
            if cell and key not in ("step", "epoch"):
                found.setdefault(key, {})[int(float(row["step"]))] = float(cell)
    return found


@pytest.mark.parametrize("accumulate", [1, 2])
def test_conflicts_are_those_that_a_strategy_sees(
    configure: Configure, tmp_path: Path, accumulate: int
) -> None:
    """PCGrad logs each task's mean cosine to the others, from the very same gradients."""
    cfg = configure(
        *SHORT,
        "logger=csv",
        "weighting=pcgrad",
        "callbacks.weight_updater.every=1",
        "callbacks.gradient_conflicts.every=1",
        f"trainer.accumulate_grad_batches={accumulate}",
    )
    fit(cfg)
    found = logged(tmp_path)
    pairs = {key: values for key, values in found.items() if key.startswith("gradient/cosine/")}
    assert len(pairs) == 6
    shift = 1 if accumulate == 1 else 0  # in step: logged by the number before the step
    compared = 0
    for task in TASKS:
        own = [values for key, values in pairs.items() if task in key.split("/")]
        for step, mean in found[f"weighting/cosine/{task}"].items():
            mine = [values[step + shift] for values in own if step + shift in values]
            if len(mine) == 3:
                compared += 1
                assert np.mean(mine) == pytest.approx(mean, abs=1e-5)
    assert compared >= 8
    assert all(set(values) <= {3, 4, 5, 6} for values in pairs.values())  # the first phase has one


def test_looking_changes_nothing(configure: Configure, tmp_path: Path) -> None:
    states = []
    for every in (1, 1000):
        cfg = configure(*SHORT, "logger=csv", f"callbacks.gradient_conflicts.every={every}")
        _, parts = fit(cfg)
        states.append({k: v.clone() for k, v in parts.model.state_dict().items()})
        assert parts.model.weigher.watched() is None
    assert len(states[0]) > 50
    for name, value in states[0].items():
        assert torch.equal(value, states[1][name]), name


def test_throughput_is_rows_over_seconds(configure: Configure, tmp_path: Path) -> None:
    fit(configure(*SHORT, "logger=csv", "callbacks.throughput.every=1"))
    found = logged(tmp_path)
    seconds = found["throughput/seconds_per_step"]
    rows = found["throughput/rows_per_second"]
    # not the first, nor those after the validations at the switch (2) and at 3
    assert set(seconds) == set(rows) == {2, 5, 6}
    for step, expected in {2: 4, 5: 16, 6: 16}.items():
        assert seconds[step] * rows[step] == pytest.approx(expected, rel=1e-4)


def test_the_cloud_shows_texts_and_pictures_of_all_tasks(
    configure: Configure, tmp_path: Path
) -> None:
    cfg = configure(*SHORT, "callbacks.projector.points=60", "callbacks.projector.validations=1")
    trainer, parts = fit(cfg)
    trainer.test(parts.model, datamodule=parts.data, verbose=False)
    config = ProjectorConfig()
    text_format.Parse((tmp_path / "projector_config.pbtxt").read_text(), config)
    assert [e.tensor_name for e in config.embeddings] == ["step_000006_test", "step_000002_dev"]
    for embedding in config.embeddings:
        vectors = np.loadtxt(tmp_path / embedding.tensor_path)
        head, *lines = (tmp_path / embedding.metadata_path).read_text().splitlines()
        rows = [dict(zip(head.split("\t"), line.split("\t"), strict=True)) for line in lines]
        assert len(vectors) == len(rows) <= 60
        assert np.linalg.norm(vectors, axis=1) == pytest.approx(1.0, abs=1e-3)
        assert {(r["task"], r["side"]) for r in rows} == {
            (task, side) for task in TASKS for side in ("query", "document")
        }
        kinds = {r["kind"] for r in rows if r["side"] == "query" and r["task"].startswith("vqa")}
        assert kinds == {"picture and text"}
        assert {r["kind"] for r in rows if r["task"] == "text_pair"} == {"text"}
        assert all(int(r["rank"]) == 0 for r in rows if r["side"] == "document")
        assert all(int(r["rank"]) > 0 for r in rows if r["task"] == "ocr" and r["side"] == "query")
        with Image.open(tmp_path / embedding.sprite.image_path) as sheet:
            side = embedding.sprite.single_image_dim[0]
            assert sheet.width == sheet.height == side * int(np.ceil(len(rows) ** 0.5))


def test_a_repeated_cloud_replaces_the_old_and_texts_stay_in_their_cells(tmp_path: Path) -> None:
    card = thumbnail("a", None, "#0072B2", "query", 32)
    line = ("tab\there\nand\u2028there " + "x" * 300, "t · query", "t", "query", "text", 1)
    for count in (4, 3):
        cloud = Cloud(np.eye(count, 5, dtype=np.float32), [line] * count, [card] * count)
        write_cloud(cloud, tmp_path, "step_1")
    (tmp_path / "projector" / "torn").mkdir()
    write_cloud(cloud, tmp_path, "step_2")
    text = (tmp_path / "projector_config.pbtxt").read_text()
    assert text.count("embeddings {") == 2 and "torn" not in text
    lines = (tmp_path / "projector" / "step_1" / "metadata.tsv").read_text().split("\n")
    assert len(lines) == 5 and {row.count("\t") for row in lines[:-1]} == {5}
    with pytest.raises(ValueError, match="each point needs one of all"):
        write_cloud(cloud._replace(cards=[card]), tmp_path, "step_3")


def test_thumbnails_show_side_and_task(tmp_path: Path) -> None:
    red = Image.new("RGB", (200, 100), "red")
    card = thumbnail("ignored", red, "#009E73", "query", 48)
    assert card.size == (48, 48) and card.getpixel((24, 20)) == (255, 0, 0)
    assert card.getpixel((0, 24)) == (0, 0x9E, 0x73) == card.getpixel((47, 47))
    plain, tinted = (
        thumbnail("", None, "#009E73", s, 48).getpixel((8, 40)) for s in ("query", "document")
    )
    assert plain == (255, 255, 255) != tinted
    sheet = sprite([card] * 5)
    assert sheet.size == (144, 144) and sheet.getpixel((0, 60)) == (0, 0x9E, 0x73)
    assert sheet.getpixel((120, 120)) == (255, 255, 255)
    with pytest.raises(ValueError, match="at least 24"):
        thumbnail("a", None, "#009E73", "query", 10)


def test_the_heat_map_has_the_signs_of_the_cosines() -> None:
    image = conflict_image(["a", "b"], [[1.0, -0.9], [0.9, 1.0]], "title", width=600)
    assert image.shape[1] == 600 and image.dtype == np.uint8
    height = image.shape[0]
    left = image[int(0.6 * height), int(0.2 * 600)].astype(int)  # row b, column a
    right = image[int(0.25 * height), int(0.62 * 600)].astype(int)  # row a, column b
    assert left[2] > left[0] + 50 and right[0] > right[2] + 50
    with pytest.raises(ValueError, match="2 × 2"):
        conflict_image(["a", "b"], [[1.0]], "title")


def test_updates_are_read_back(tmp_path: Path) -> None:
    file = tmp_path / "report" / "updates.jsonl"
    update = WeightUpdate(
        4,
        {"a": 2.0},
        {"a": 0.5},
        {"a": 3},
        {"a": 1.0},
        {"a": 1.5},
        "why",
        {"a": "ü"},
        {"c": {"a": 1.0}},
    )
    for step in (4, 8, 8, 12):  # a resumed run repeats one
        append_update(update._replace(step=step, reason=f"{step}"), file)
    with file.open("a") as lines:
        lines.write('{"step": 16, "mean_lo')
    assert [u.step for u in read_updates(file)] == [4, 8, 12]
    assert read_updates(file)[0] == update._replace(reason="4")
    append_update(update._replace(mean_losses={"a": float("nan")}), tmp_path / "nan.jsonl")
    assert json.loads((tmp_path / "nan.jsonl").read_text())["mean_losses"] == {"a": None}
    assert read_updates(tmp_path / "none.jsonl") == []


def test_galleries_keep_texts_and_thumbnails(tmp_path: Path) -> None:
    row = GalleryRow(
        query_text="q" * 2000,
        query_image=Image.new("RGBA", (900, 300), "blue"),
        answer_text="a",
        results=[Result("r", None, 0.123456, True)],
    )
    file = tmp_path / "report" / "galleries.json"
    write_galleries({"ocr": {"hardest": [row]}}, file)
    write_galleries({"ocr": {"spread": [row]}, "vqa": {"spread": [row]}}, file)
    kept = read_json(file)
    assert kept is not None
    assert set(kept) == {"ocr", "vqa"} and set(kept["ocr"]) == {"hardest", "spread"}
    (saved,) = kept["ocr"]["hardest"]
    assert len(saved["query"]) == 600 and saved["picture"].startswith("data:image/jpeg;base64,")
    assert len(saved["picture"]) < 10_000
    assert saved["results"] == [{"text": "r", "picture": None, "cosine": 0.1235, "correct": True}]


def test_values_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match=r"gradient_conflicts\.every"):
        GradientConflicts(every=0)
    with pytest.raises(ValueError, match=r"throughput\.every"):
        Throughput(every=0)
    with pytest.raises(ValueError, match=r"projector\.points must be in \[2, 10000\], got 1"):
        Projector(points=1)
    with pytest.raises(ValueError, match=r"projector\.thumbnail"):
        Projector(thumbnail=200)
