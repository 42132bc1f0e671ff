"""The folded patch embedding against normalising first."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from polyqwen.models.vision.patch_embedding import PatchEmbedding
from tests.models.test_encoder import normalised


def embedding(trained: bool = False) -> PatchEmbedding:
    size = (2, 14, 14)
    made = PatchEmbedding(nn.Conv3d(3, 64, kernel_size=size, stride=size, bias=False))
    return made.requires_grad_(trained)


def patches() -> Tensor:
    noise = torch.randint(0, 256, (40, 588), dtype=torch.uint8)
    noise[:4] = torch.tensor([0, 1, 254, 255])[:, None]  # plain ones, up to black and white
    return noise


def unfolded(module: PatchEmbedding, pixels: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    weight = module.proj.weight.to(dtype).sum(2).flatten(1)
    return F.linear(normalised(pixels).to(dtype), weight)


def relative(ours: Tensor, theirs: Tensor) -> float:
    return float(((ours - theirs).norm() / theirs.norm()).detach())


def test_equals_normalising_first() -> None:
    module, pixels = embedding(), patches()
    frames = normalised(pixels).unflatten(1, (3, 1, 14, 14)).repeat(1, 1, 2, 1, 1)
    theirs = module.proj(frames).flatten(1)
    assert relative(module(pixels), theirs) < 1e-6


def test_half_precision_loses_no_more_than_half_precision() -> None:
    module, pixels = embedding(), patches()
    exact = unfolded(module, pixels, torch.float64)
    plain = unfolded(module, pixels, torch.bfloat16)
    ours = module.to(torch.bfloat16)(pixels)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = embedding_like(module)(pixels)
    assert 1e-4 < relative(plain, exact) < 5e-3
    assert relative(ours, exact) < 1e-2 and relative(mixed, exact) < 1e-2


def embedding_like(module: PatchEmbedding) -> PatchEmbedding:
    other = embedding()
    other.load_state_dict(module.state_dict())
    return other


def test_a_frozen_weight_is_folded_once_and_every_change_is_seen() -> None:
    module, pixels = embedding(), patches()
    assert module.folded()[0] is module.folded()[0]

    def check() -> None:
        assert relative(module(pixels), unfolded(module, pixels)) < 1e-6

    check()
    with torch.no_grad():
        module.proj.weight.mul_(-2.0)
    check()
    module.load_state_dict({"proj.weight": torch.randn(64, 3, 2, 14, 14)})
    check()
    module.load_state_dict({"proj.weight": torch.randn(64, 3, 2, 14, 14)}, assign=True)
    check()
    module.requires_grad_(False).double()
    assert module(pixels).dtype == torch.float64


def test_a_trained_weight_gets_the_same_gradient() -> None:
    module, pixels = embedding(trained=True), patches()
    (gradient,) = torch.autograd.grad(module(pixels).pow(2).sum(), module.proj.weight)
    (theirs,) = torch.autograd.grad(unfolded(module, pixels).pow(2).sum(), module.proj.weight)
    assert relative(gradient, theirs) < 1e-6
    with torch.no_grad():
        module.proj.weight.data.add_(1.0)  # unseen by versions, which a trained weight skips
    assert relative(module(pixels), unfolded(module, pixels)) < 1e-6


def test_checkpoints_keep_their_keys() -> None:
    assert list(embedding().state_dict()) == ["proj.weight"]
    with pytest.raises(RuntimeError, match="size mismatch"):
        embedding().load_state_dict({"proj.weight": torch.zeros(64, 3, 1, 14, 14)})
