"""Encoders against the Hugging Face models they wrap, and strict loading."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.testing import assert_close
from transformers import BertConfig, BertModel, Qwen2VLConfig, Qwen2VLModel
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from polyqwen.data.collator import mrope_positions
from polyqwen.data.images.images import Pictures
from polyqwen.models.encoder import Chunk, Images
from polyqwen.models.loading import Vocabulary
from polyqwen.models.qwen2_vl import Qwen2VLEncoder
from polyqwen.models.text import TextEncoder
from polyqwen.models.vision.patch_embedding import IMAGE_MEAN, IMAGE_STD

IMAGE, VOCAB = 7, 64
CONFIG = {
    "text_config": {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 128,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 10.0,
            "mrope_section": [1, 1, 2],
        },
    },
    "vision_config": {
        "depth": 2,
        "embed_dim": 16,
        "num_heads": 2,
        "mlp_ratio": 2,
        "hidden_size": 32,
    },
}


def tiny(freeze_vision: bool = False) -> Qwen2VLEncoder:
    return Qwen2VLEncoder.from_config(
        CONFIG, freeze_vision=freeze_vision, vocabulary=Vocabulary(VOCAB, (), IMAGE)
    )


def normalised(patches: torch.Tensor) -> torch.Tensor:
    mean, std = (255 * torch.tensor(x).repeat_interleave(196) for x in (IMAGE_MEAN, IMAGE_STD))
    return (patches - mean) / std


def bert() -> TextEncoder:
    config = {
        "model_type": "bert",
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
    }
    return TextEncoder.from_config(config, vocabulary=Vocabulary(VOCAB))


def chunk_of(rows: list[list[int]], grid: tuple[int, int] = (0, 0)) -> Chunk:
    """A chunk of rows of token ids; every row has a picture of `grid` where it holds IMAGE."""
    longest = max(map(len, rows))
    ids = torch.zeros(len(rows), longest, dtype=torch.long)
    mask = torch.zeros(len(rows), longest, dtype=torch.bool)
    positions = torch.zeros(3, len(rows), longest, dtype=torch.long)
    visual = 0
    for i, row in enumerate(rows):
        ids[i, : len(row)] = torch.tensor(row)
        mask[i, : len(row)] = True
        start = row.index(IMAGE) if IMAGE in row else len(row)
        own = grid if IMAGE in row else (0, 0)
        positions[:, i, : len(row)] = torch.from_numpy(mrope_positions(len(row), start, own))
        visual += row.count(IMAGE)
    return Chunk(ids, mask, positions, torch.arange(visual) if visual else None)


def picture(tmp_path: Path, size: tuple[int, int]) -> Pictures:
    pixels = np.random.default_rng(0).integers(0, 255, (*size, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    return Pictures(tmp_path, resize="pillow")


@pytest.mark.parametrize("size", [(56, 84), (61, 100), (300, 40)])
def test_equals_the_hugging_face_model_from_file_to_hidden_states(
    tmp_path: Path, size: tuple[int, int]
) -> None:
    encoder = tiny().eval()
    pictures = picture(tmp_path, size)
    target = pictures.target_size(size, 12)
    patches = torch.from_numpy(pictures.patches(pictures.pixels("a.png", target)))
    down, across = target[0] // 28, target[1] // 28
    row = [1, 2, *[IMAGE] * (down * across), 3, 4, 5]
    grid = torch.tensor([[1, down * 2, across * 2]])
    visual = encoder.encode_images(Images(patches, grid))
    ours = encoder(chunk_of([row], (down, across)), visual)

    reference = Qwen2VLModel(encoder.model.config).eval()
    reference.load_state_dict(encoder.model.state_dict())
    processor = Qwen2VLImageProcessorPil(
        size={"shortest_edge": 28 * 28, "longest_edge": 12 * 28 * 28}
    )
    inputs = processor(images=[Image.open(tmp_path / "a.png")], return_tensors="pt")
    assert_close(inputs["image_grid_thw"], grid)
    theirs = reference(
        input_ids=torch.tensor([row]),
        mm_token_type_ids=torch.tensor([[int(i == IMAGE) for i in row]]),
        use_cache=False,
        **inputs,
    ).last_hidden_state
    assert theirs.abs().max() > 0.1
    assert_close(ours, theirs, atol=2e-5, rtol=1e-4)


def test_pictures_of_mixed_sizes_equal_the_hugging_face_tower() -> None:
    encoder = tiny().eval()
    reference = Qwen2VLModel(encoder.model.config).eval()
    reference.load_state_dict(encoder.model.state_dict())
    grid = torch.tensor([[1, 2, 2], [1, 2, 2], [1, 4, 2], [1, 2, 4], [1, 2, 2]])
    patches = torch.randint(0, 256, (int(grid.prod(1).sum()), 588), dtype=torch.uint8)
    frames = normalised(patches).unflatten(1, (3, 1, 196)).repeat(1, 1, 2, 1)
    theirs = reference.visual(frames.flatten(1), grid_thw=grid).pooler_output
    ours = encoder.encode_images(Images(patches, grid))
    assert theirs.std(0).min() > 0  # pictures differ
    assert_close(ours, theirs, atol=2e-5, rtol=1e-4)


def test_blocks_start_as_the_identity_without_residual_weights() -> None:
    encoder = Qwen2VLEncoder.from_config(
        CONFIG, residual_init=0.0, vocabulary=Vocabulary(VOCAB, (), IMAGE)
    ).eval()
    states = encoder(chunk_of([[1, 2, 3], [4, 2, 5]], (0, 0)), None)
    assert states.abs().max() > 0.1
    assert_close(states[0, 1], states[1, 1])  # a token looks at nobody


def test_padding_and_batch_mates_change_nothing() -> None:
    encoder = tiny().eval()
    visual = torch.randn(8, 32)
    rows = [[1, 2], [1, *[IMAGE] * 4, 5, 6, 8], [3, *[IMAGE] * 4, 9]]
    together = encoder(chunk_of(rows, (2, 2)), visual)
    for i, (row, own) in enumerate(zip(rows, [None, visual[:4], visual[4:]], strict=True)):
        assert_close(together[i, : len(row)], encoder(chunk_of([row], (2, 2)), own)[0])


@pytest.mark.parametrize("freeze", [True, False])
def test_frozen_vision_has_no_graph_and_stays_in_evaluation_mode(freeze: bool) -> None:
    encoder = tiny(freeze_vision=freeze).train()
    patches = torch.randint(0, 255, (4, 588), dtype=torch.uint8)
    visual = encoder.encode_images(Images(patches, torch.tensor([[1, 2, 2]])))
    assert visual.requires_grad is not freeze
    assert encoder.model.visual.training is not freeze
    trained = [p for p in encoder.model.visual.parameters() if p.requires_grad]
    assert bool(trained) is not freeze
    encoder(chunk_of([[1, IMAGE, 2]], (1, 1)), visual).sum().backward()
    assert encoder.model.language_model.embed_tokens.weight.grad.abs().sum() > 0
    if not freeze:
        assert encoder.model.visual.patch_embed.proj.weight.grad.abs().sum() > 0


def test_text_encoder_ignores_padding_and_refuses_pictures() -> None:
    encoder = bert().eval()
    together = encoder(chunk_of([[1, 2, 3], [4, 5, 6, 8, 9]]))
    assert_close(together[0, :3], encoder(chunk_of([[1, 2, 3]]))[0])
    with pytest.raises(ValueError, match="text model"):
        encoder.encode_images(Images(torch.zeros(4, 588), torch.tensor([[1, 2, 2]])))


def test_pretrained_weights_are_all_there_or_refused(tmp_path: Path) -> None:
    config = Qwen2VLConfig(**CONFIG, vocab_size=VOCAB)
    config.text_config.vocab_size = VOCAB
    model = Qwen2VLModel(config)
    model.save_pretrained(tmp_path / "whole")
    vocabulary = Vocabulary(VOCAB + 2, (VOCAB, VOCAB + 1), IMAGE)
    encoder = Qwen2VLEncoder.from_pretrained(str(tmp_path / "whole"), vocabulary=vocabulary)
    table = encoder.model.get_input_embeddings().weight
    assert_close(table[:VOCAB], model.get_input_embeddings().weight)
    assert_close(table[VOCAB], table[:VOCAB].mean(0))
    assert encoder.freeze_vision

    state = model.state_dict()
    for change, message in (
        ({"visual.merger.mlp.0.weight": None}, "missing keys"),
        ({"visual.stranger": torch.ones(2)}, "unexpected keys"),
        ({"visual.merger.mlp.2.bias": torch.ones(3)}, "mismatched"),
    ):
        broken = {k: v for k, v in {**state, **change}.items() if v is not None}
        model.save_pretrained(tmp_path / "broken", state_dict=broken)
        with pytest.raises((ValueError, RuntimeError), match=f"{message}|size mismatch"):
            Qwen2VLEncoder.from_pretrained(str(tmp_path / "broken"), vocabulary=vocabulary)


def test_pretrained_text_model_loads_with_or_without_its_pooler(tmp_path: Path) -> None:
    config = BertConfig(
        vocab_size=VOCAB,
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
    )
    for pooler in (True, False):
        BertModel(config, add_pooling_layer=pooler).save_pretrained(tmp_path / str(pooler))
        encoder = TextEncoder.from_pretrained(
            str(tmp_path / str(pooler)), vocabulary=Vocabulary(VOCAB)
        )
        assert encoder.hidden_size == 32
        assert not any("pooler" in name for name, _ in encoder.named_parameters())
