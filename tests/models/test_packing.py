"""Packed encoders against padded ones: equal, leak-free, and without waiting for a device."""

from collections import Counter
from typing import Any

import pytest
import torch
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode
from transformers.vision_utils import get_vision_position_ids

from polyqwen.build.run import build
from polyqwen.data.tables.dataset import MultiTaskDataset
from polyqwen.models import packing
from polyqwen.models.encoder import Chunk, Images
from polyqwen.models.loading import Vocabulary
from polyqwen.models.packing import PackedChunk, Packing
from polyqwen.models.qwen2_vl import Qwen2VLEncoder
from polyqwen.models.text import TextEncoder
from polyqwen.models.tuning.sharing import AdaptedEncoder
from polyqwen.models.vision.tower import patch_positions
from tests.conftest import Configure
from tests.models.test_encoder import CONFIG, IMAGE, VOCAB, chunk_of

TEXTS = [[1, 2], [3, 4], [5, 6, 8, 9, 10], [1], [2, 3, 4]]
PICTURES = [[1, 2], [1, *[IMAGE] * 4, 5, 6, 8], [3, *[IMAGE] * 4, 9], [4, 5, 6]]
GRID = torch.tensor([[1, 4, 4], [1, 4, 4]])


def encoder_of(attention: str, freeze_vision: bool = False) -> Qwen2VLEncoder:
    return Qwen2VLEncoder.from_config(
        CONFIG,
        attention=attention,
        freeze_vision=freeze_vision,
        vocabulary=Vocabulary(VOCAB, (), IMAGE),
    )


def twins() -> tuple[Qwen2VLEncoder, Qwen2VLEncoder]:
    padded, packed = encoder_of("sdpa"), encoder_of("packed")
    packed.load_state_dict(padded.state_dict())
    assert packed.packs and not padded.packs
    return padded, packed


def images() -> Images:
    generator = torch.Generator().manual_seed(0)
    patches = torch.randint(0, 256, (32, 588), dtype=torch.uint8, generator=generator)
    return Images(patches, GRID, [16, 16])


def relative(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    return float(((ours - theirs).norm() / theirs.norm()).detach())


@pytest.mark.parametrize("rows", [TEXTS, PICTURES, [[1, 2, 3]]], ids=["texts", "pictures", "one"])
@pytest.mark.parametrize("known", [True, False], ids=["lengths", "mask"])
def test_hidden_states_and_gradients_equal_the_padded_ones(
    rows: list[list[int]], known: bool
) -> None:
    chunk = chunk_of(rows, (2, 2))
    if known:
        chunk = chunk._replace(lengths=[len(row) for row in rows])
    results = []
    for encoder in twins():
        visual = encoder.encode_images(images()) if chunk.visual is not None else None
        hidden = encoder(chunk, visual) * chunk.mask[..., None]
        (hidden**3).sum().backward()
        gradients = [p.grad for p in encoder.parameters() if p.grad is not None]
        results.append((hidden.detach(), torch.cat([g.flatten() for g in gradients])))
    (padded, gradient), (packed, other) = results
    assert padded.norm() > 1 and gradient.norm() > 1 and len(gradient) == len(other)
    assert relative(packed, padded) < 1e-6
    assert relative(other, gradient) < 1e-6


def test_three_rows_of_positions_would_leak_and_four_do_not() -> None:
    encoder = encoder_of("sdpa")
    chunk = chunk_of(TEXTS)
    packed = PackedChunk(chunk)
    padded = encoder(chunk, None) * chunk.mask[..., None]

    def hidden(positions: torch.Tensor) -> torch.Tensor:
        embedded = encoder.model.get_input_embeddings()(packed.ids)
        return packed.pad(
            encoder.model.language_model(
                inputs_embeds=embedded, position_ids=positions, use_cache=False
            ).last_hidden_state
        )

    assert relative(hidden(packed.positions), padded) < 1e-6
    assert relative(hidden(packed.positions[1:]), padded) > 0.1


def test_a_content_reads_nobody_else() -> None:
    encoder = encoder_of("packed")
    table = encoder.model.get_input_embeddings().weight
    chunk = chunk_of([[1, 2, 3], [4, 5], [6, 8, 9]])
    encoder(chunk, None)[1].sum().backward()
    assert table.grad[[4, 5]].norm(dim=1).min() > 0
    assert table.grad[[1, 2, 3, 6, 8, 9]].norm() == 0


def test_patch_positions_equal_transformers() -> None:
    grid = torch.tensor([[1, 4, 2], [1, 2, 6], [1, 6, 4]])
    borders = Packing.of(grid.prod(1), grid.prod(1).tolist())
    assert_close(patch_positions(grid, borders, 2), get_vision_position_ids(grid, 2))


def test_bf16_autocast_equals_the_padded_one() -> None:
    chunk = chunk_of(TEXTS)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        padded, packed = (encoder(chunk, None) * chunk.mask[..., None] for encoder in twins())
    assert relative(packed.float(), padded.float()) < 1e-2


SIZES = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
KINDS: dict[str, dict[str, Any]] = {
    "bert": {"num_attention_heads": 4, "hidden_dropout_prob": 0.0, "max_position_embeddings": 8},
    "qwen3": {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8},
    "llama": {"num_attention_heads": 4, "num_key_value_heads": 2},
}


def text_encoder(kind: str, attention: str, **settings: Any) -> TextEncoder:
    config = {"model_type": kind, "attention_probs_dropout_prob": 0.0, **SIZES, **settings}
    if kind != "bert":
        del config["attention_probs_dropout_prob"]
    return TextEncoder.from_config(config, attention=attention, vocabulary=Vocabulary(VOCAB))


@pytest.mark.parametrize("kind", KINDS)
def test_text_models_equal_the_padded_ones(kind: str) -> None:
    padded, packed = (text_encoder(kind, name, **KINDS[kind]) for name in ("sdpa", "packed"))
    packed.load_state_dict(padded.state_dict())
    chunk = chunk_of(TEXTS)  # more tokens than BERT has positions
    theirs, ours = (encoder(chunk) * chunk.mask[..., None] for encoder in (padded, packed))
    assert theirs.norm() > 1
    assert relative(ours, theirs) < 1e-6


def test_unknown_kinds_and_adapters_are_refused() -> None:
    with pytest.raises(ValueError, match="this is a roberta"):
        text_encoder("roberta", "packed", num_attention_heads=4)
    with pytest.raises(ValueError, match="sharing=adapters"):
        AdaptedEncoder(encoder_of("packed"), 2, targets=["q_proj"], rank=1, alpha=1, freeze=True)


def test_dropout_in_attention_is_refused() -> None:
    config = {**CONFIG, "text_config": {**CONFIG["text_config"], "attention_dropout": 0.1}}
    encoder = Qwen2VLEncoder.from_config(
        config, attention="packed", vocabulary=Vocabulary(VOCAB, (), IMAGE)
    )
    with pytest.raises(ValueError, match="attention=packed"):
        encoder.train()(chunk_of(TEXTS), None)


def without_numbers(batch: Any, known: bool) -> Any:
    """Chunk or pictures whose tensors have shapes only; their lengths may be known all the same."""
    moved = [x.to("meta") if isinstance(x, torch.Tensor) else x for x in batch]
    return type(batch)(*moved)._replace(lengths=batch.lengths if known else None)


@pytest.mark.parametrize("frozen", [True, False], ids=["frozen", "trained"])
def test_a_step_never_waits_for_its_device(frozen: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The path of a GPU, traced without numbers: whatever asks the device for one raises."""
    monkeypatch.setattr(packing, "has_kernel", lambda device: device.type == "meta")
    encoder = encoder_of("packed", frozen).to("meta", torch.bfloat16)
    chunk = chunk_of(PICTURES, (2, 2))._replace(lengths=[len(row) for row in PICTURES])
    with KernelCalls() as calls:
        visual = encoder.encode_images(without_numbers(images(), known=True))
        hidden = encoder(without_numbers(chunk, known=True), visual)
        hidden.sum().backward()
    assert hidden.shape == (4, 8, 32) and visual is not None and visual.requires_grad is not frozen
    assert calls.count == {"_varlen_attn": 4, "_varlen_attn_backward": 2 if frozen else 4}
    with pytest.raises((RuntimeError, NotImplementedError), match="meta"):
        encoder.encode_images(without_numbers(images(), known=False))
    with pytest.raises((RuntimeError, NotImplementedError), match="meta"):
        encoder(without_numbers(chunk, known=False), visual)


class KernelCalls(TorchDispatchMode):
    """Counts calls of the attention kernel."""

    def __init__(self) -> None:
        super().__init__()
        self.count: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.namespace == "torch_attn":
            self.count[func._opname] += 1
        return func(*args, **(kwargs or {}))


@pytest.mark.gpu
@pytest.mark.parametrize("rows", [TEXTS, PICTURES], ids=["texts", "pictures"])
def test_kernel_on_a_gpu_equals_fp32(rows: list[list[int]]) -> None:
    padded, packed = (encoder.cuda() for encoder in twins())
    chunk = Chunk(*(x.cuda() if isinstance(x, torch.Tensor) else x for x in chunk_of(rows, (2, 2))))
    pictures = Images(images().patches.cuda(), GRID.cuda())
    visual = padded.encode_images(pictures)
    theirs = padded(chunk, visual) * chunk.mask[..., None]
    with torch.autocast("cuda", dtype=torch.bfloat16):
        ours = packed(chunk, packed.encode_images(pictures))
    assert relative(ours.float(), theirs) < 2e-2


def test_a_configured_model_embeds_rows_with_pictures_alike(configure: Configure) -> None:
    padded, packed = (
        build(configure(f"model.encoder.attention={name}")) for name in ("sdpa", "packed")
    )
    packed.model.load_state_dict(padded.model.state_dict())
    rows = [(task, i) for task in padded.data.tasks for i in range(4)]
    dataset = MultiTaskDataset(padded.data.splits.tables("train"))
    batch = padded.data.collator(dataset.__getitems__(rows))
    assert batch.images is not None and packed.model.encoder.packs
    theirs, ours = (each.model.eval()(batch) for each in (padded, packed))
    assert relative(ours, theirs) < 1e-6
