"""Every way to save memory gives the gradients of a plain step, and runs the vision tower once."""

from itertools import groupby
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from polyqwen.build.run import Parts, build
from polyqwen.data.batch import Batch
from polyqwen.models.encoder import Images
from polyqwen.models.memory.large_batch import MODES, LargeBatch
from polyqwen.models.memory.plan import saved_bytes
from polyqwen.models.vision.feature_store import VisualStore, split_images
from tests.conftest import Configure
from tests.ranks import on_ranks
from tests.training.test_module import batch_of
from tests.training.test_resume import DROPOUT, Result, fit

SMALL = "data.chunk_tokens=96"  # several chunks in a batch of a few rows
GIVEN = [f"tasks.{task}.negatives_from=given" for task in ("vqa_single", "vqa_multi")]
MODELS = {
    "qwen2_vl": [SMALL, "model.encoder.freeze_vision=true"],
    "qwen2_vl, vision trained": [SMALL, "model.encoder.freeze_vision=false"],
    "qwen2_vl, packed": [
        SMALL,
        "model.encoder.freeze_vision=true",
        "model.encoder.attention=packed",
    ],
    "qwen2_vl, dropout": [SMALL, "+model.encoder.config.text_config.attention_dropout=0.3"],
    "qwen2_vl, given negatives": [
        *(SMALL, "task=[vqa_single,vqa_multi]", "curriculum=single_phase"),
        *GIVEN,
    ],
    "text, dropout": [
        SMALL,
        "model=tiny_text",
        "task=[text_pair]",
        "model.encoder.config.hidden_dropout_prob=0.3",
    ],
}
every_model = pytest.mark.parametrize("model", MODELS)


def made(configure: Configure, options: list[str]) -> Parts:
    parts = build(configure("weighting=static", *options))
    parts.model.train()
    with torch.no_grad():
        for name, parameter in parts.model.named_parameters():
            if name.startswith("pooling."):
                parameter.normal_(std=0.3)  # its queries start near zero
    return parts


def gradients(
    parts: Parts, batch: Batch, mode: str, seed: int = 5, autocast: bool = False, **options: Any
) -> dict[str, Tensor]:
    model = parts.model
    model.large_batch = LargeBatch(mode, **options)
    model.zero_grad(set_to_none=True)
    torch.manual_seed(seed)
    with torch.autocast("cpu", torch.bfloat16, autocast):
        loss = model.training_step(batch, 0)
    loss.backward()
    assert model.large_batch.last == mode or mode == "auto"
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


def relative(found: dict[str, Tensor], truth: dict[str, Tensor]) -> float:
    assert found.keys() == truth.keys() and len(truth) > 10
    ours, theirs = (torch.cat([g[n].flatten().double() for n in truth]) for g in (found, truth))
    assert theirs.norm() > 1e-3
    return float((ours - theirs).norm() / theirs.norm())


@every_model
@pytest.mark.parametrize("mode", ["checkpoint", "cached"])
def test_gradients_are_those_of_a_plain_step(configure: Configure, model: str, mode: str) -> None:
    parts = made(configure, MODELS[model])
    tasks = parts.model.tasks
    batch = batch_of(parts, tasks, rows=6)
    assert len(batch.chunks) > 2
    truth = gradients(parts, batch, "off")
    assert relative(gradients(parts, batch, mode, visual_patches=16), truth) < 1e-6
    if "dropout" in model:  # random numbers of another order give other gradients
        assert relative(gradients(parts, batch, "off", seed=6), truth) > 1e-2


@pytest.mark.parametrize("mode", ["checkpoint", "cached"])
def test_under_autocast_too(configure: Configure, mode: str) -> None:
    """The second pass is in the same precision as the first, although backward is outside."""
    parts = made(configure, [SMALL])
    batch = batch_of(parts, rows=6)

    full = gradients(parts, batch, "off")
    plain = gradients(parts, batch, "off", autocast=True)
    assert relative(gradients(parts, batch, mode, autocast=True), plain) < 1e-2
    assert relative(plain, full) > 1e-3  # bfloat16 was at work


@pytest.mark.parametrize("mode", MODES)
def test_the_vision_tower_runs_once_and_chunks_as_often_as_they_must(
    configure: Configure, mode: str
) -> None:
    parts = made(configure, [SMALL])
    batch = batch_of(parts, rows=6)
    model = parts.model
    passes = {"vision": 0, "text": 0}

    def count(name: str) -> Any:
        def hook(*_: object) -> None:
            passes[name] += 1

        return hook

    model.encoder.model.visual.register_forward_hook(count("vision"))
    model.encoder.model.language_model.register_forward_hook(count("text"))
    model.large_batch = LargeBatch(mode, memory_gb=1e-9)  # auto: nothing fits
    model.training_step(batch, 0).backward()
    twice = mode in ("auto", "cached")
    measured = 1 if mode == "auto" else 0
    assert passes == {"vision": 1, "text": len(batch.chunks) * (2 if twice else 1) + measured}


def test_auto_takes_what_fits(configure: Configure) -> None:
    parts = made(configure, [SMALL])
    batch = batch_of(parts, rows=6)
    truth = gradients(parts, batch, "off")
    chosen = []
    for gigabytes in (2.0**-n for n in range(18)):
        assert relative(gradients(parts, batch, "auto", memory_gb=gigabytes), truth) < 1e-6
        chosen.append(parts.model.large_batch.last)
    assert [mode for mode, _ in groupby(chosen)] == ["off", "checkpoint", "cached"]


def test_what_a_pass_keeps_is_counted(configure: Configure) -> None:
    """In proportion to tokens, whichever chunk is measured; far more than a layer's inputs."""
    parts = made(configure, [SMALL])
    chunks = [c for c in batch_of(parts, ["text_pair"], rows=24).chunks if c.visual is None]
    encoder, pooling = parts.model.encoder, parts.model.pooling

    def encode(chunk: Any, visual: Tensor | None) -> Tensor:
        return pooling(encoder(chunk, visual), chunk.mask)

    parameters = list(parts.model.parameters())
    each = [saved_bytes(encode, c, None, parameters) / c.ids.numel() for c in chunks]
    layers, width = encoder.recomputable_layers, encoder.hidden_size
    assert len(each) > 2 and max(each) < 1.3 * min(each)
    assert min(each) > 5 * 4 * width * layers


def test_pictures_are_split_at_their_borders() -> None:
    grid = torch.tensor([[1, 2, 2], [1, 4, 2], [1, 2, 4], [1, 6, 2]])
    images = Images(torch.arange(32)[:, None], grid)
    sizes = [[int(g.prod()) for g in part.grid] for part in split_images(images, 12)]
    assert sizes == [[4, 8], [8], [12]]
    assert torch.equal(torch.cat([p.patches for p in split_images(images, 1)]), images.patches)
    assert split_images(images, None) == [images]


def test_features_do_not_depend_on_how_pictures_are_taken(configure: Configure) -> None:
    parts = made(configure, [SMALL])
    batch, encoder = batch_of(parts, rows=6), parts.model.encoder
    whole, cut = VisualStore(encoder, batch.images), VisualStore(encoder, batch.images, 16)
    assert torch.allclose(whole.features, cut.features, atol=1e-5)
    assert whole.trained is whole.features  # this tower is trained
    encoder.freeze_vision = True
    none = VisualStore(encoder, None)
    assert none.features is none.trained is None
    chunk = batch.chunks[0]
    assert none.of(chunk) == (chunk, None)


def test_layers_with_adapters_cannot_be_computed_again_alone(configure: Configure) -> None:
    adapters = ["model=tiny_text", "model/sharing=adapters", "task=[text_pair]", SMALL]
    parts = made(configure, adapters)
    batch = batch_of(parts, ["text_pair"], rows=6)
    with pytest.raises(ValueError, match="large_batch=checkpoint does not go with"):
        gradients(parts, batch, "checkpoint")
    truth = gradients(parts, batch, "off")
    assert relative(gradients(parts, batch, "cached"), truth) < 1e-6
    assert relative(gradients(parts, batch, "auto", memory_gb=1e-6), truth) < 1e-6
    assert parts.model.large_batch.last == "cached"


CACHED = (SMALL, "large_batch=cached", "large_batch.visual_patches=16")


@pytest.mark.parametrize("source", [(), tuple(GIVEN)], ids=["both", "given"])
def test_two_ranks_train_like_one_plain_process(
    configure: Configure, tmp_path: Path, source: tuple[str, ...]
) -> None:
    def run(rank: int) -> Result:
        two = ("trainer.devices=2", "data.rows_per_task=3")
        return fit(configure, tmp_path / "two", *CACHED, *two, *source)

    one = fit(configure, tmp_path / "one", "large_batch=off", "data.rows_per_task=6", *source)
    two = on_ranks(2, run)
    ours, theirs = (torch.cat([g.flatten() for g in r.gradients]) for r in (two[0], one))
    assert theirs.norm() > 0.1
    assert (ours - theirs).norm() < 1e-5 * theirs.norm()
    assert two[0].losses == two[1].losses
    assert two[0].losses == pytest.approx(one.losses, rel=1e-5)


@pytest.mark.parametrize(
    ("mode", "weighting"),
    [("cached", "pcgrad"), ("cached", "lossrag"), ("cached", "famo"), ("checkpoint", "stw")],
)
def test_runs_resume_exactly(
    configure: Configure, tmp_path: Path, mode: str, weighting: str
) -> None:
    """With dropout, and with strategies that look at gradients, trusted rows or a step twice."""
    given = [f"weighting={weighting}"]
    large = CACHED if mode == "cached" else (f"large_batch={mode}",)
    options = (*large, DROPOUT, "data.trusted_rows=4")
    through = fit(configure, tmp_path / "a", *options, weighting=given)
    ckpt = tmp_path / "a" / "5.ckpt"
    resumed = fit(configure, tmp_path / "b", *options, weighting=given, ckpt=ckpt)
    assert_close(resumed.state, through.state, rtol=0.0, atol=0.0, equal_nan=True)
    assert all(map(torch.equal, resumed.optimizer, through.optimizer))


@pytest.mark.parametrize("gram", ["shared_head", "full"])
def test_task_gradients_are_those_of_a_plain_step(configure: Configure, gram: str) -> None:
    parts = made(configure, [SMALL, "weighting=equal_norm", f"weighting/gram={gram}"])
    batch, products = batch_of(parts, rows=6), {}
    for mode in ("off", "cached"):
        parts.model.large_batch = LargeBatch(mode)
        parts.model.weighting.gram.take()
        features = parts.model.features(batch)
        own = parts.model.step_losses
        outputs = own.outputs(own.pairs(features.embeddings, features.tasks))
        losses = [outputs[task].total for task in own.tasks]
        parts.model.weighting.gram.add(losses, parts.model.weigher.graph(features))
        products[mode] = parts.model.weighting.gram.take().tasks
    assert products["off"].diagonal().min() > 0
    assert torch.allclose(products["cached"], products["off"], rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"mode": "cache"}, "mode must be one of auto, off, checkpoint, cached, got 'cache'"),
        ({"memory_gb": 0.0}, "memory_gb must be > 0 or null"),
        ({"visual_patches": 0}, "visual_patches >= 1"),
    ],
)
def test_wrong_settings_are_named(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        LargeBatch(**options)
