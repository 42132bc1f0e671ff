"""Exported folders: read back here and by sentence-transformers to equal vectors."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer
from transformers import AutoTokenizer

import polyqwen
from polyqwen import EmbeddingModel
from polyqwen.app.commands.export import export
from polyqwen.export.folder import write_sums
from tests.conftest import ROOT, Configure
from tests.saved_runs import make_run

TEXT = ("model=tiny_text", "task=[text_pair]", "curriculum=single_phase", "callbacks.boost=null")
PLAIN = (*TEXT, "model/projection=identity")
EXTRA = {"model/tuning=last_layers": ("model.tuning.layers=1",)}
TEXTS = [
    "a",
    "größer, 中文, tiếng Việt",
    "a <ocr> row with <|image_pad|> and <|im_end|> in it",
    "a longer text, " * 40,
]


@pytest.fixture
def pictures(folder: Path) -> list[Image.Image]:
    """Of several sizes and modes."""
    own = [Image.open(p) for p in sorted((folder / "images" / "vqa_single").rglob("*.png"))[:2]]
    return [*own, own[0].resize((333, 211)), own[1].convert("L"), own[1].convert("RGBA")]


@pytest.fixture
def exported(configure: Configure, tmp_path: Path) -> Callable[..., tuple[EmbeddingModel, Path]]:
    """The run's model, and the folder it was exported to."""

    def make(*overrides: str, **settings: Any) -> tuple[EmbeddingModel, Path]:
        run = make_run(configure, tmp_path / "run", *overrides)
        export(run, tmp_path / "out", **settings)
        return EmbeddingModel.load(run, device="cpu"), tmp_path / "out"

    return make


@pytest.mark.parametrize(
    "option",
    [
        "data.resize=torch",
        "data.resize=pillow",
        "model=tiny_qwen2_5_vl",
        "model=tiny_qwen3_vl",
        "model/tuning=lora",
        "model/tuning=dora",
        "model/tuning=last_layers",
        "model/sharing=soft",
        "model/sharing=adapters",
    ],
)
def test_pictures_and_texts_come_out_equal_everywhere(
    exported: Callable[..., tuple[EmbeddingModel, Path]], pictures: list[Any], option: str
) -> None:
    model, folder = exported(*EXTRA.get(option, ()), option, "data.max_visual_tokens=40")
    again = polyqwen.load(folder, device="cpu")
    theirs = SentenceTransformer(str(folder), trust_remote_code=True, device="cpu")
    both = [{"text": "what is it?", "image": picture} for picture in pictures]
    for task in model.tasks:
        for inputs in (TEXTS, pictures, both):
            wanted = model.encode(inputs, task=task)
            np.testing.assert_allclose(again.encode(inputs, task=task), wanted, atol=1e-6)
            found = theirs.encode(inputs, prompt_name=task)
            np.testing.assert_allclose(found, wanted, atol=1e-5)
    np.testing.assert_allclose(theirs.encode(TEXTS), model.encode(TEXTS), atol=1e-5)
    np.testing.assert_allclose(theirs.encode_query(TEXTS), model.encode(TEXTS), atol=1e-5)
    assert theirs.get_embedding_dimension() == model.dimension


def test_a_model_of_several_widths(
    exported: Callable[..., tuple[EmbeddingModel, Path]], pictures: list[Any]
) -> None:
    model, folder = exported("widths=matryoshka")
    theirs = SentenceTransformer(str(folder), trust_remote_code=True, device="cpu")
    again = EmbeddingModel.load(folder, device="cpu")
    for width in (32, 128):
        for inputs in (TEXTS, pictures):
            wanted = model.encode(inputs, task="ocr", truncate_dim=width)
            found = theirs.encode(inputs, prompt_name="ocr", truncate_dim=width)
            found /= np.linalg.norm(found, axis=1, keepdims=True)
            np.testing.assert_allclose(found, wanted, atol=1e-5)
            own = again.encode(inputs, task="ocr", truncate_dim=width)
            np.testing.assert_allclose(own, wanted, atol=1e-6)


@pytest.mark.parametrize("sharing", ["soft", "adapters"])
def test_parts_of_tasks_with_one_prefix(
    exported: Callable[..., tuple[EmbeddingModel, Path]], sharing: str, tmp_path: Path
) -> None:
    tasks = ("task=[text_pair,topic,sentiment]", "weighting=static", f"model/sharing={sharing}")
    model, folder = exported(*TEXT, *tasks)
    again = EmbeddingModel.load(folder, device="cpu")
    theirs = SentenceTransformer(str(folder), trust_remote_code=True, device="cpu")
    theirs.save(str(tmp_path / "again"))
    shutil.copy(folder / "modeling_polyqwen.py", tmp_path / "again")
    saved = SentenceTransformer(str(tmp_path / "again"), trust_remote_code=True, device="cpu")
    wanted = {task: model.encode(TEXTS, task=task) for task in model.tasks}
    assert np.abs(wanted["topic"] - wanted["sentiment"]).max() > 1e-3  # with the same prefix
    for task, vectors in wanted.items():
        np.testing.assert_allclose(again.encode(TEXTS, task=task), vectors, atol=1e-6)
        for other in (theirs, saved):
            np.testing.assert_allclose(
                other.encode(TEXTS, prompt_name=task), vectors, atol=1e-5, err_msg=task
            )


def test_adapters_of_another_model_are_refused(
    exported: Callable[..., tuple[EmbeddingModel, Path]],
) -> None:
    _, folder = exported("model/sharing=adapters")
    weights = load_file(folder / "adapters.safetensors")
    name = next(iter(weights))
    save_file({**weights, name: weights[name][:1]}, folder / "adapters.safetensors")
    write_sums(folder)
    with pytest.raises(ValueError, match=r"adapters\.safetensors does not fit its model"):
        EmbeddingModel.load(folder)


def test_saved_again_by_sentence_transformers_it_stays_the_same(
    exported: Callable[..., tuple[EmbeddingModel, Path]], pictures: list[Any], tmp_path: Path
) -> None:
    _, folder = exported(task="ocr")
    first = SentenceTransformer(str(folder), trust_remote_code=True, device="cpu")
    first.save(str(tmp_path / "again"))
    modeling = (folder / "modeling_polyqwen.py").read_text(encoding="utf-8")
    (tmp_path / "again" / "modeling_polyqwen.py").write_text(modeling, encoding="utf-8")
    second = SentenceTransformer(str(tmp_path / "again"), trust_remote_code=True, device="cpu")
    np.testing.assert_array_equal(first.encode(pictures), second.encode(pictures))
    assert first.default_prompt_name == "ocr"


@pytest.mark.parametrize("pooling", ["attention", "mean", "cls", "last_token"])
@pytest.mark.parametrize("size", [64, 128])
def test_text_models(
    exported: Callable[..., tuple[EmbeddingModel, Path]], pooling: str, size: int
) -> None:
    model, folder = exported(
        *TEXT, f"model/pooling={pooling}", f"model.projection.output_size={size}"
    )
    wanted = model.encode(TEXTS)
    np.testing.assert_allclose(EmbeddingModel.load(folder).encode(TEXTS), wanted, atol=1e-6)
    theirs = SentenceTransformer(str(folder), trust_remote_code=True, device="cpu")
    np.testing.assert_allclose(theirs.encode(TEXTS), wanted, atol=1e-5)
    assert theirs.modalities == ["text"]


def test_a_qwen3_text_model(exported: Callable[..., tuple[EmbeddingModel, Path]]) -> None:
    model, folder = exported(*TEXT, "model=tiny_qwen3")
    theirs = SentenceTransformer(str(folder), trust_remote_code=True, device="cpu")
    np.testing.assert_allclose(theirs.encode(TEXTS), model.encode(TEXTS), atol=1e-5)


@pytest.mark.parametrize("pooling", ["mean", "cls", "last_token"])
@pytest.mark.parametrize("prefix", ["token", "none"])
def test_plain_models_need_no_code_of_ours(
    exported: Callable[..., tuple[EmbeddingModel, Path]], pooling: str, prefix: str
) -> None:
    overrides = (f"model/pooling={pooling}", f"model.tokens.prefix_mode={prefix}")
    model, folder = exported(*PLAIN, *overrides, plain=True)
    theirs = SentenceTransformer(str(folder), device="cpu")
    harmless = [TEXTS[0], TEXTS[1], TEXTS[3]]
    np.testing.assert_allclose(theirs.encode(harmless), model.encode(harmless), atol=1e-5)
    assert not (folder / "modeling_polyqwen.py").exists()


def test_what_a_folder_cannot_hold_is_refused(configure: Configure, tmp_path: Path) -> None:
    run = make_run(configure, tmp_path / "run", *TEXT)
    with pytest.raises(ValueError, match="this model has mean and residual; leave --plain out"):
        export(run, tmp_path / "out", plain=True)
    labels = ("model=tiny_text", "task=[text_pair,topic]", "curriculum=single_phase")
    labels = (*labels, "weighting=static", "callbacks.boost=null", "model/sharing=adapters")
    parts = make_run(configure, tmp_path / "parts", *labels)
    for way in ("plain", "onnx"):
        with pytest.raises(ValueError, match="AdaptedEncoder cannot be exported this way"):
            export(parts, tmp_path / "out", **{way: True})
    with pytest.raises(ValueError, match="not the folder of a run"):
        export(tmp_path, tmp_path / "out")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["parts", "run"]  # nothing half written


def test_partial_changed_and_mismatched_folders_are_refused(
    exported: Callable[..., tuple[EmbeddingModel, Path]],
) -> None:
    _, folder = exported()
    with pytest.raises(ValueError, match="is there already"):
        export(folder, folder)
    weights = folder / "model.safetensors"
    content = weights.read_bytes()
    flipped = bytearray(content)
    flipped[-100] ^= 1
    weights.write_bytes(flipped)
    with pytest.raises(ValueError, match=r"model\.safetensors has changed since the export"):
        EmbeddingModel.load(folder)
    weights.unlink()
    with pytest.raises(ValueError, match=r"model\.safetensors is missing"):
        EmbeddingModel.load(folder)
    weights.write_bytes(content)
    state = load_file(weights)
    del state[next(name for name in state if name.endswith("norm.weight"))]
    save_file(state, weights, metadata={"format": "pt"})
    write_sums(folder)
    with pytest.raises(ValueError, match="1 missing keys"):
        EmbeddingModel.load(folder)
    with pytest.raises(ValueError, match="1 weights are missing"):
        SentenceTransformer(str(folder), trust_remote_code=True)
    weights.write_bytes(content)
    head = folder / "1_Head" / "config.json"
    changed = {**json.loads(head.read_text(encoding="utf-8")), "output_size": 64}
    head.write_text(json.dumps(changed), encoding="utf-8")
    write_sums(folder)
    with pytest.raises(ValueError, match="1_Head does not fit"):
        EmbeddingModel.load(folder)
    (folder / "SHA256SUMS").unlink()
    with pytest.raises(ValueError, match="its export did not end"):
        EmbeddingModel.load(folder)


def test_the_card_tells_how_to_use_the_model(configure: Configure, tmp_path: Path) -> None:
    run = make_run(configure, tmp_path / "run")
    report = {
        "trained": {"text_pair": {"spearman": 0.5, "pool": 32.0}, "ocr": {"mrr": 0.25}},
        "untrained": {"text_pair": {"spearman": 0.1}},
        "chance": {"ocr": {"mrr": 0.03}},
    }
    (run / "results.json").write_text(json.dumps(report), encoding="utf-8")
    command = [sys.executable, "-m", "polyqwen", "export", str(run), "--to"]
    done = subprocess.run(
        [*command, str(tmp_path / "card")], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    card = (tmp_path / "card" / "README.md").read_text(encoding="utf-8")
    assert "| text_pair | spearman | 0.500 | 0.100 | – | 32 |" in card
    assert "| ocr | mrr | 0.250 | – | 0.030 | – |" in card
    assert card.startswith("---\nlibrary_name: sentence-transformers\n") and "# card\n" in card
    code = card.split("```python\n")[-1].split("```")[0].replace("FOLDER", str(tmp_path / "card"))
    shown = subprocess.run(
        [sys.executable, "-c", f"{code}\nprint(vectors.shape)"],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert shown.stdout == "(2, 128)\n", shown.stderr
    sums = subprocess.run(
        ["sha256sum", "--quiet", "-c", "SHA256SUMS"], cwd=tmp_path / "card", check=False
    )
    assert sums.returncode == 0
    modes = {path.stat().st_mode for path in (tmp_path / "card").rglob("*") if path.is_file()}
    assert len(modes) == 1  # who may read one file may read the model
    assert AutoTokenizer.from_pretrained(tmp_path / "card").convert_tokens_to_ids("<ocr>") > 0
    again = subprocess.run(
        [*command, str(tmp_path / "card")], capture_output=True, text=True, cwd=ROOT
    )
    assert again.returncode == 1 and again.stderr.count("\n") == 1


@pytest.mark.parametrize("overrides", [(), TEXT], ids=["pictures", "text"])
def test_texts_through_onnx(
    exported: Callable[..., tuple[EmbeddingModel, Path]], overrides: tuple[str, ...]
) -> None:
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    model, folder = exported(*overrides, onnx=True)
    session = runtime.InferenceSession(folder / "onnx" / "model.onnx")
    frame = json.loads((folder / "polyqwen.json").read_text(encoding="utf-8"))["frames"][
        "text_pair"
    ]
    ids = [[*frame["start"], *i, *frame["end"]] for i in model.tokens.encode(TEXTS)]
    longest = max(map(len, ids))
    given = {
        "input_ids": np.array([i + [0] * (longest - len(i)) for i in ids]),
        "attention_mask": np.array([[1] * len(i) + [0] * (longest - len(i)) for i in ids]),
    }
    (found,) = session.run(None, given)
    np.testing.assert_allclose(found, model.encode(TEXTS), atol=1e-5)


def test_onnx_says_what_it_needs(configure: Configure, tmp_path: Path) -> None:
    run = make_run(configure, tmp_path / "run", *TEXT)
    code = (
        "import sys, importlib.util as u; find = u.find_spec\n"
        "u.find_spec = lambda n, *a: None if n.startswith('onnx') else find(n, *a)\n"
        "from pathlib import Path; from polyqwen.app.commands.export import export\n"
        f"export(Path({str(run)!r}), Path({str(tmp_path / 'out')!r}), onnx=True)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert "--onnx needs onnx and onnxscript; pip install onnx onnxscript" in done.stderr
    assert not (tmp_path / "out").exists()
