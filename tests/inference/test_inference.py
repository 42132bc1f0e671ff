"""Vectors of a trained model: the same whatever comes with them, and the run's own."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

import polyqwen
from polyqwen import EmbeddingModel
from polyqwen.build.run import build
from polyqwen.data.tables.dataset import MultiTaskDataset
from polyqwen.inference.load import run_parts
from polyqwen.runs.weights import load_weights
from tests.conftest import Configure
from tests.saved_runs import make_run

TASKS = ("text_pair", "ocr", "vqa_single", "vqa_multi")


@pytest.fixture
def run(configure: Configure, tmp_path: Path) -> Path:
    return make_run(configure, tmp_path / "run")


@pytest.fixture
def model(run: Path) -> EmbeddingModel:
    return polyqwen.load(run, device="cpu")


@pytest.fixture
def inputs(folder: Path) -> list[Any]:
    """Texts and pictures of many lengths and sizes, also both."""
    pictures = sorted((folder / "images" / "ocr").rglob("*.png"))[:3]
    wide = Image.new("L", (300, 60), 90)
    return [
        "a",
        "two words",
        "a longer text, " * 9,
        *pictures,
        wide,
        {"text": "what is it?", "image": pictures[0]},
        {"text": "what is it?", "image": str(pictures[1])},
        {"text": "only a text"},
    ]


def test_the_vectors_are_those_of_the_run(
    configure: Configure, run: Path, model: EmbeddingModel
) -> None:
    parts = build(configure(f"run_dir={run}"))
    load_weights(parts.model, run / "checkpoints" / "last.ckpt")
    dataset = MultiTaskDataset(parts.data.splits.tables("test"))
    for task in TASKS:
        batch = parts.data.collator([dataset[task, i] for i in range(4)])
        with torch.no_grad():
            wanted = parts.model.eval()(batch)[batch.tasks[task].query]
        shown = dataset.texts(task, range(4))
        root = parts.data.pictures.root
        found = model.encode(
            [
                {"text": e["query_text"], "image": e["query_image"] and root / e["query_image"]}
                for e in shown
            ],
            task=task,
        )
        np.testing.assert_allclose(found, wanted.numpy(), atol=1e-5)
    assert polyqwen.EmbeddingModel is EmbeddingModel


@settings(max_examples=10, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_an_inputs_vector_does_not_depend_on_the_others(
    model: EmbeddingModel, inputs: list[Any], data: st.DataObject
) -> None:
    order = data.draw(st.permutations(range(len(inputs))))
    some = order[: data.draw(st.integers(1, len(order)))]
    size = data.draw(st.integers(1, 6))
    wanted = np.stack([model.encode(inputs[i], task="ocr") for i in some])
    found = model.encode([inputs[i] for i in some], task="ocr", batch_size=size)
    np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_a_picture_is_the_same_from_file_and_memory(
    model: EmbeddingModel, inputs: list[Any]
) -> None:
    path = inputs[3]
    both = model.encode([path, Image.open(path), {"image": str(path)}], task="ocr")
    assert np.ptp(both, axis=0).max() == 0.0


def test_tasks_sizes_and_norms(model: EmbeddingModel, inputs: list[Any]) -> None:
    whole = model.encode(inputs, task="ocr", convert_to_numpy=False)
    assert whole.shape == (len(inputs), model.dimension)
    torch.testing.assert_close(whole.norm(dim=1), torch.ones(len(inputs)))
    assert (model.encode(inputs, task="vqa_single") != whole.numpy()).any()
    cut = model.encode(inputs, task="ocr", truncate_dim=16, convert_to_numpy=False)
    wanted = torch.nn.functional.normalize(whole[:, :16], dim=1)
    torch.testing.assert_close(cut, wanted)
    raw = model.encode(inputs[0], task="ocr", normalize=False)
    assert raw.shape == (model.dimension,) and abs(np.linalg.norm(raw) - 1) > 0.01
    np.testing.assert_allclose(raw / np.linalg.norm(raw), whole[0], atol=1e-6)
    assert model.default_task == "text_pair"
    np.testing.assert_array_equal(
        model.encode_query(["x"]), model.encode_document(["x"], task="text_pair")
    )
    cosines = model.similarity(whole[:2], whole)
    torch.testing.assert_close(cosines, whole[:2] @ whole.T)
    assert model.encode([]).shape == (0, model.dimension)


@pytest.mark.parametrize(
    ("inputs", "settings", "says"),
    [
        ("x", {"task": "nope"}, "task 'nope' is unknown; the model has text_pair"),
        (" ", {}, "an input is empty"),
        ([3], {}, "an input is a text, a pathlib.Path"),
        ({"texts": "x"}, {}, "has the keys text and image, got texts"),
        ({"image": 3}, {}, "image a path or a PIL picture"),
        (Path("nope.png"), {}, "nope.png cannot be read: there is no such file"),
        ("x", {"truncate_dim": 0}, "truncate_dim in [1, 128], got 32 and 0"),
        ("x", {"batch_size": 0}, "batch_size must be at least 1"),
    ],
    ids=str,
)
def test_what_cannot_be_embedded_is_said(
    model: EmbeddingModel, inputs: Any, settings: dict[str, Any], says: str
) -> None:
    with pytest.raises(ValueError) as error:
        model.encode(inputs, **settings)
    assert says in str(error.value)


TEXT = ("model=tiny_text", "task=[text_pair]", "curriculum=single_phase", "callbacks.boost=null")


@pytest.mark.parametrize("pooling", ["mean", "cls", "last_token", "attention"])
def test_text_models(configure: Configure, tmp_path: Path, pooling: str) -> None:
    own = make_run(configure, tmp_path / "run", *TEXT, f"model/pooling={pooling}")
    model = EmbeddingModel.load(own, device="cpu")
    texts: Sequence[str] = ["a", "a text", "a longer text, " * 20]
    alone = np.stack([model.encode(text) for text in texts])
    np.testing.assert_allclose(model.encode(texts), alone, atol=1e-5)
    with pytest.raises(ValueError, match="is a text model"):
        model.encode(Image.new("RGB", (30, 30)))


LABELS = (
    "model=tiny_text",
    "task=[text_pair,sentiment,topic]",
    "curriculum=single_phase",
    "weighting=static",
    "callbacks.boost=null",
)


@pytest.mark.parametrize("sharing", ["hard", "soft", "adapters"])
def test_models_with_a_part_per_task(configure: Configure, tmp_path: Path, sharing: str) -> None:
    own = make_run(configure, tmp_path / "run", *LABELS, f"model/sharing={sharing}")
    cfg = configure(*LABELS, f"model/sharing={sharing}")
    parts = build(cfg)
    load_weights(parts.model, own / "checkpoints" / "last.ckpt")
    dataset = MultiTaskDataset(parts.data.splits.tables("test"))
    model = EmbeddingModel.load(own, device="cpu")
    for task in ("sentiment", "topic"):
        batch = parts.data.collator([dataset[task, i] for i in range(3)], only=task)
        with torch.no_grad():
            features = parts.model.eval().features(batch)
        wanted = features.embeddings[features.tasks[task].query]
        texts = [e["query_text"] for e in dataset.texts(task, range(3))]
        np.testing.assert_allclose(model.encode(texts, task=task), wanted.numpy(), atol=1e-5)


def test_folders_that_are_no_models(run: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="neither the folder of a run"):
        EmbeddingModel.load(tmp_path)
    with pytest.raises(ValueError, match="there is no checkpoint"):
        run_parts(run, "best")
    text = (run / "config.yaml").read_text(encoding="utf-8")
    target = "polyqwen.models.pooling.AttentionPooling"
    (run / "config.yaml").write_text(text.replace(target, "os.system"), encoding="utf-8")
    with pytest.raises(ValueError, match=r"os\.system"):
        EmbeddingModel.load(run)
