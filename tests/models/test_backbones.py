"""Every Qwen-VL family against its Hugging Face model, and what composes with it."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from torch import Tensor
from torch.testing import assert_close
from transformers import Qwen2_5_VLForConditionalGeneration, Qwen3VLForConditionalGeneration
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from polyqwen.build.run import build
from polyqwen.data.collator import mrope_positions
from polyqwen.data.images.images import Pictures
from polyqwen.models.encoder import Chunk, Images
from polyqwen.models.loading import Vocabulary
from polyqwen.models.qwen2_5_vl import Qwen2_5_VLEncoder
from polyqwen.models.qwen2_vl import Qwen2VLEncoder
from polyqwen.models.qwen3_vl import Qwen3VLEncoder
from polyqwen.models.qwen_vl import QwenVLEncoder
from tests.conftest import ROOT, Configure
from tests.models.test_large_batch import gradients, made, relative
from tests.training.test_module import batch_of

IMAGE, VOCAB = 7, 64
FAMILIES: dict[str, type[QwenVLEncoder]] = {
    "qwen2_vl": Qwen2VLEncoder,
    "qwen2_5_vl": Qwen2_5_VLEncoder,
    "qwen3_vl": Qwen3VLEncoder,
}
MODELS = {"qwen2_vl": "tiny", "qwen2_5_vl": "tiny_qwen2_5_vl", "qwen3_vl": "tiny_qwen3_vl"}
every_family = pytest.mark.parametrize("family", FAMILIES)
SIZES = [(60, 300), (130, 130), (33, 70), (130, 130)]  # several windows, a ragged one, equal ones


def encoder_of(family: str, **settings: Any) -> QwenVLEncoder:
    """Of the YAML that ships, with larger weights, so that attention and positions matter."""
    path = ROOT / f"conf/model/encoder/{family}_tiny.yaml"
    node = yaml.safe_load(path.read_text(encoding="utf-8"))
    node = {k: v for k, v in node.items() if k != "_target_"} | {"residual_init": 1.0} | settings
    encoder = FAMILIES[family].from_config(**node, vocabulary=Vocabulary(VOCAB, (), IMAGE))
    with torch.no_grad():
        for block in encoder.model.visual.blocks:
            block.attn.qkv.weight.mul_(4.0)
    return encoder.eval()


def cut(pictures: Pictures, names: list[str]) -> tuple[Images, list[tuple[int, int]]]:
    """The pictures in patches, and their visual tokens down and across."""
    targets = [pictures.target_size(pictures.size(name), 40) for name in names]
    pixels = [pictures.pixels(name, t) for name, t in zip(names, targets, strict=True)]
    patches = [torch.from_numpy(pictures.patches(p)) for p in pixels]
    cells = [(t[0] // pictures.cell, t[1] // pictures.cell) for t in targets]
    grid = torch.tensor([[1, 2 * down, 2 * across] for down, across in cells])
    return Images(torch.cat(patches), grid, [len(p) for p in patches]), cells


def contents(cells: list[tuple[int, int]]) -> Chunk:
    """A row of text alone, then one for each picture, in the pictures' order."""
    rows = [[1, 2, 3, 4]]
    rows += [
        [5, *[IMAGE] * (down * across), *range(8, 10 + i)] for i, (down, across) in enumerate(cells)
    ]
    longest = max(map(len, rows))
    ids, mask = torch.zeros(len(rows), longest, dtype=torch.long), torch.zeros(len(rows), longest)
    positions = torch.zeros(3, len(rows), longest, dtype=torch.long)
    for i, (row, own) in enumerate(zip(rows, [(0, 0), *cells], strict=True)):
        ids[i, : len(row)], mask[i, : len(row)] = torch.tensor(row), 1
        start = 1 if i else len(row)
        positions[:, i, : len(row)] = torch.from_numpy(mrope_positions(len(row), start, own))
    visual = torch.arange(sum(down * across for down, across in cells))
    return Chunk(ids, mask.bool(), positions, visual, lengths=[len(row) for row in rows])


@pytest.fixture
def pictures(tmp_path: Path) -> list[str]:
    draw = np.random.default_rng(0)
    names = [f"{i}.png" for i in range(len(SIZES))]
    for name, size in zip(names, SIZES, strict=True):
        pixels = draw.integers(0, 255, (*size, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / name)
    return names


def theirs_of(encoder: QwenVLEncoder, chunk: Chunk, folder: Path, names: list[str]) -> Tensor:
    """Hidden states of the Hugging Face model with its own processor, positions and mask."""
    reference = encoder.model_class(encoder.model.config).eval()
    reference.load_state_dict(encoder.model.state_dict())
    patch, tower = encoder.model.visual.config.patch_size, encoder.tower
    processor = Qwen2VLImageProcessorPil(
        size={"shortest_edge": (2 * patch) ** 2, "longest_edge": 40 * (2 * patch) ** 2},
        patch_size=patch,
        image_mean=list(tower.mean),
        image_std=list(tower.std),
    )
    inputs = processor(images=[Image.open(folder / n) for n in names], return_tensors="pt")
    return reference(
        input_ids=chunk.ids,
        attention_mask=chunk.mask.long(),
        mm_token_type_ids=(chunk.ids == IMAGE).int(),
        use_cache=False,
        **inputs,
    ).last_hidden_state


@every_family
@pytest.mark.parametrize("attention", ["sdpa", "packed", "eager"])
def test_equals_the_hugging_face_model(
    family: str, attention: str, pictures: list[str], tmp_path: Path
) -> None:
    encoder = encoder_of(family, attention=attention)
    patch = encoder.model.visual.config.patch_size
    images, cells = cut(Pictures(tmp_path, patch_size=patch, resize="pillow"), pictures)
    chunk = contents(cells)
    with torch.no_grad():
        ours = encoder(chunk, encoder.encode_images(images))
        plain = encoder_of(family)
        plain.load_state_dict(encoder.state_dict())
        theirs = theirs_of(plain, chunk, tmp_path, pictures)
    assert theirs[chunk.mask].std() > 0.5
    ours, theirs = ours[chunk.mask], theirs[chunk.mask]
    assert (ours - theirs).norm() < 1e-5 * theirs.norm()
    assert_close(ours, theirs, atol=5e-5, rtol=1e-5)


@every_family
def test_pictures_do_not_see_each_other_and_order_is_kept(
    family: str, pictures: list[str], tmp_path: Path
) -> None:
    encoder = encoder_of(family)
    data = Pictures(tmp_path, patch_size=encoder.model.visual.config.patch_size)
    together, cells = cut(data, pictures)
    with torch.no_grad():
        seen = encoder.encode_images(together).split([down * across for down, across in cells])
        for name, own in zip(pictures, seen, strict=True):
            assert_close(encoder.encode_images(cut(data, [name])[0]), own, atol=1e-5, rtol=1e-5)
    assert (seen[1] - seen[3]).abs().max() > 0.1  # equal sizes, other pictures


@every_family
@pytest.mark.parametrize("freeze", [True, False], ids=["frozen", "trained"])
def test_a_frozen_tower_has_no_graph_and_a_trained_one_its_gradients(
    family: str, freeze: bool, pictures: list[str], tmp_path: Path
) -> None:
    encoder = encoder_of(family, freeze_vision=freeze).train()
    images, cells = cut(
        Pictures(tmp_path, patch_size=encoder.model.visual.config.patch_size), pictures
    )
    visual = encoder.encode_images(images)
    assert visual is not None and visual.requires_grad is not freeze
    hidden = encoder(contents(cells), visual)
    (hidden**3).sum().backward()
    without = {n for n, p in encoder.named_parameters() if p.grad is None or not p.grad.any()}
    tower = {n for n, _ in encoder.named_parameters() if n.startswith("model.visual.")}
    assert without == (tower if freeze else set())
    blank = encoder.encode_images(None)
    assert blank is None if freeze else blank is not None and blank.shape == (1, visual.shape[1])


@every_family
def test_published_weights_load_whole_and_another_family_is_refused(
    family: str, tmp_path: Path
) -> None:
    encoder = encoder_of(family)
    with_head = {
        "qwen2_5_vl": Qwen2_5_VLForConditionalGeneration,
        "qwen3_vl": Qwen3VLForConditionalGeneration,
    }
    patch = encoder.model.visual.config.patch_size
    reference = encoder.model
    if family in with_head:  # as they are published
        reference = with_head[family](encoder.model.config)
        reference.model.load_state_dict(encoder.model.state_dict())
    reference.save_pretrained(tmp_path / "whole")
    vocabulary = Vocabulary(VOCAB, (), IMAGE)
    loaded = FAMILIES[family].from_pretrained(
        str(tmp_path / "whole"), patch_size=patch, vocabulary=vocabulary
    )
    for name, value in encoder.model.state_dict().items():
        assert_close(loaded.model.state_dict()[name], value, msg=name)
    other = FAMILIES["qwen3_vl" if family != "qwen3_vl" else "qwen2_vl"]
    with pytest.raises(ValueError, match=f"is a {family}, not a .*choose another model/encoder"):
        other.from_pretrained(str(tmp_path / "whole"), vocabulary=vocabulary)
    with pytest.raises(ValueError, match=f"set model.encoder.patch_size={patch}"):
        FAMILIES[family].from_pretrained(
            str(tmp_path / "whole"), patch_size=15, vocabulary=vocabulary
        )


@pytest.mark.parametrize("family", ["qwen2_5_vl", "qwen3_vl"])
def test_features_kept_on_disk_equal_fresh_ones(
    family: str, pictures: list[str], tmp_path: Path
) -> None:
    settings = {"freeze_vision": True, "vision_cache": str(tmp_path / "kept")}
    encoder = encoder_of(family, **settings)
    data = Pictures(tmp_path, patch_size=encoder.model.visual.config.patch_size)
    images, _ = cut(data, pictures)
    fresh = encoder_of(family, freeze_vision=True)
    fresh.load_state_dict(encoder.state_dict())
    expected = fresh.encode_images(images)
    for _ in range(2):
        assert_close(encoder.encode_images(images), expected, atol=1e-5, rtol=1e-5)
    assert len(list(tmp_path.rglob("*.safetensors"))) == len(pictures)


@pytest.mark.parametrize("family", ["qwen2_5_vl", "qwen3_vl"])
@pytest.mark.parametrize("mode", ["checkpoint", "cached"])
@pytest.mark.parametrize("attention", ["sdpa", "packed"])
def test_large_batches_have_the_gradients_of_a_plain_step(
    configure: Configure, family: str, mode: str, attention: str
) -> None:
    options = [f"model={MODELS[family]}", f"model.encoder.attention={attention}"]
    parts = made(configure, [*options, "data.chunk_tokens=96"])
    assert parts.data.pictures.patch_size == parts.model.encoder.model.visual.config.patch_size
    batch = batch_of(parts, parts.model.tasks, rows=4)
    assert len(batch.chunks) > 2 and batch.images is not None
    truth = gradients(parts, batch, "off")
    assert relative(gradients(parts, batch, mode, visual_patches=16), truth) < 1e-5


@pytest.mark.parametrize("pooling", ["mean", "last_token"])
def test_a_causal_text_model_packed_and_padded_alike(configure: Configure, pooling: str) -> None:
    options = ["model=tiny_qwen3", "task=[text_pair]", f"model/pooling={pooling}"]
    padded, packed = (
        build(configure(*options, f"model.encoder.attention={name}")) for name in ("sdpa", "packed")
    )
    packed.model.load_state_dict(padded.model.state_dict())
    batch = batch_of(padded, ["text_pair"], rows=6)
    theirs, ours = (each.model.eval()(batch) for each in (padded, packed))
    assert theirs.std(0).min() > 1e-4
    assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
