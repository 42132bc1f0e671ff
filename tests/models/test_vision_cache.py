"""Features of a frozen tower on disk: equal, looked up by content, never stale or torn."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from polyqwen.models.encoder import Images
from polyqwen.models.loading import Vocabulary
from polyqwen.models.qwen2_vl import Qwen2VLEncoder
from tests.models.test_encoder import CONFIG, IMAGE, VOCAB
from tests.models.test_packing import relative


def encoder_of(folder: Path | None, freeze_vision: bool = True) -> Qwen2VLEncoder:
    encoder = Qwen2VLEncoder.from_config(
        CONFIG,
        freeze_vision=freeze_vision,
        vision_cache=None if folder is None else str(folder),
        vocabulary=Vocabulary(VOCAB, (), IMAGE),
    )
    with torch.no_grad():
        for block in encoder.model.visual.blocks:
            block.attn.qkv.weight.mul_(20.0)  # positions matter
    return encoder


def seen(encoder: Qwen2VLEncoder) -> list[int]:
    """Patches of every later call of the tower."""
    counts: list[int] = []

    def note(module: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        counts.append(len(inputs[0]))

    encoder.model.visual.patch_embed.register_forward_hook(note)
    return counts


PATCHES = torch.randint(
    0, 256, (32, 588), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
)
GRIDS = [[1, 2, 2], [1, 4, 2], [1, 2, 4], [1, 4, 2]]  # 4 + 8 + 8 + 8 patches


def images(*which: int) -> Images:
    starts = [0, 4, 12, 20]
    sizes = [4, 8, 8, 8]
    patches = torch.cat([PATCHES[starts[i] : starts[i] + sizes[i]] for i in which])
    return Images(patches, torch.tensor([GRIDS[i] for i in which]), [sizes[i] for i in which])


def test_pictures_are_seen_once_and_come_back_equal_in_any_order(tmp_path: Path) -> None:
    encoder, plain = encoder_of(tmp_path), encoder_of(None)
    plain.load_state_dict(encoder.state_dict())
    counts = seen(encoder)
    for which in ([0, 1], [1, 2, 0], [2, 0, 3, 1], [3]):
        ours, theirs = (e.encode_images(images(*which)) for e in (encoder, plain))
        assert ours is not None and theirs is not None and theirs.norm() > 0.01
        assert relative(ours, theirs) < 1e-6
    assert counts == [12, 8, 8]
    again = encoder_of(tmp_path)
    again.load_state_dict(encoder.state_dict())
    counts = seen(again)
    assert_close(again.encode_images(images(3)), ours, atol=0, rtol=0)
    assert counts == []  # another process would find them too


def test_the_same_patches_in_another_grid_are_another_picture(tmp_path: Path) -> None:
    encoder = encoder_of(tmp_path)
    wide, tall = (
        encoder.encode_images(Images(PATCHES[:8], torch.tensor([grid]))) for grid in GRIDS[1:3]
    )
    assert wide is not None and tall is not None and relative(wide, tall) > 1e-3


def test_other_weights_and_another_precision_see_anew(tmp_path: Path) -> None:
    encoder = encoder_of(tmp_path)
    counts = seen(encoder)
    first = encoder.encode_images(images(0))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        encoder.encode_images(images(0))
    assert len(counts) == 2
    with torch.no_grad():
        encoder.model.visual.merger.mlp[2].bias.add_(1.0)
    assert_close(encoder.encode_images(images(0)), first + 1.0)
    assert len(counts) == 3
    encoder.model.load_state_dict(encoder_of(None).model.state_dict())
    assert relative(encoder.encode_images(images(0)), first) > 1e-2
    assert len(counts) == 4 and len(list(tmp_path.glob("*/*/*.safetensors"))) == 4


def test_files_appear_whole_and_damage_is_named(tmp_path: Path) -> None:
    encoder = encoder_of(tmp_path)
    encoder.encode_images(images(0, 1))
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) == 2 and {path.suffix for path in files} == {".safetensors"}
    for path in files:
        path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(ValueError, match=r"vision_cache: .*safetensors is damaged.*delete it"):
        encoder.encode_images(images(0))


def test_a_trained_tower_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="set freeze_vision=true or vision_cache=null"):
        encoder_of(tmp_path, freeze_vision=False)
