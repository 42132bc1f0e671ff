"""Compiled blocks: no graph breaks, few compilations, the same numbers and checkpoints."""

import random
from collections.abc import Iterator

import pytest
import torch
from torch._dynamo.utils import counters
from torch.testing import assert_close

from polyqwen.models import packing
from polyqwen.models.loading import Vocabulary
from polyqwen.models.memory.layers import compile_blocks, recomputable
from polyqwen.models.qwen2_vl import Qwen2VLEncoder
from polyqwen.models.text import TextEncoder
from tests.models.test_encoder import CONFIG, IMAGE, VOCAB, chunk_of
from tests.models.test_packing import encoder_of, without_numbers

BERT = {"model_type": "bert", "hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 1}
LENGTHS = [[3, 7, 9], [2, 5], [4, 4, 4, 8], [11, 12], [6, 7, 8, 9, 10]]


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()


def rows_of(lengths: list[int]) -> list[list[int]]:
    return [[random.randrange(1, 6) for _ in range(length)] for length in lengths]


def compiled(encoder: Qwen2VLEncoder, backend: str = "eager") -> Qwen2VLEncoder:
    compile_blocks(recomputable(encoder.model.language_model), backend)
    return encoder


def breaks() -> int:
    return sum(counters["graph_break"].values())


def test_varied_lengths_take_one_graph_and_no_break() -> None:
    plain = encoder_of("sdpa")
    encoder = encoder_of("sdpa")
    encoder.load_state_dict(plain.state_dict())
    compiled(encoder)
    for lengths in LENGTHS:
        chunk = chunk_of(rows_of(lengths))
        states, expected = encoder(chunk, None), plain(chunk, None)
        assert_close(states, expected)
    states.sum().backward()
    expected.sum().backward()
    assert_close(
        encoder.model.language_model.layers[0].mlp.up_proj.weight.grad,
        plain.model.language_model.layers[0].mlp.up_proj.weight.grad,
    )
    assert len(recomputable(encoder.model.language_model)) == 2
    assert breaks() == 0 and counters["stats"]["unique_graphs"] == 1
    with torch.no_grad():
        encoder.eval()(chunk, None)
    assert breaks() == 0 and counters["stats"]["unique_graphs"] == 2  # one more for evaluation


def test_packed_blocks_for_a_gpu_take_one_graph_and_no_break(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Traced on shapes alone; see `test_packing`."""
    monkeypatch.setattr(packing, "has_kernel", lambda device: device.type == "meta")
    encoder = compiled(encoder_of("packed")).to("meta", torch.bfloat16)
    for lengths in LENGTHS:
        chunk = chunk_of(rows_of(lengths))._replace(lengths=lengths)
        encoder(without_numbers(chunk, known=True), None).sum().backward()
    assert breaks() == 0 and 1 <= counters["stats"]["unique_graphs"] <= 2


def test_packed_blocks_on_a_cpu_are_compiled_once() -> None:
    encoder = compiled(encoder_of("packed"))
    encoder(chunk_of(rows_of(LENGTHS[-1])), None)
    pieces = counters["stats"]["unique_graphs"]
    for lengths in LENGTHS[:3]:
        encoder(chunk_of(rows_of(lengths)), None)
    assert pieces > 0 and counters["stats"]["unique_graphs"] == pieces


def test_a_compiled_backward_under_autocast_equals_the_plain_one() -> None:
    plain, encoder = encoder_of("sdpa"), encoder_of("sdpa")
    encoder.load_state_dict(plain.state_dict())
    compiled(encoder, "aot_eager")
    chunk = chunk_of(rows_of(LENGTHS[0]))
    gradients = []
    for each in (plain, encoder):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            (each(chunk, None) * chunk.mask[..., None]).float().pow(2).sum().backward()
        gradients.append(each.model.language_model.layers[0].self_attn.q_proj.weight.grad)
    assert gradients[0].norm() > 0
    assert_close(gradients[1], gradients[0], atol=1e-3 * float(gradients[0].norm()), rtol=2e-2)


def test_compiled_blocks_are_computed_again_without_new_graphs() -> None:
    encoder = compiled(encoder_of("sdpa"), "aot_eager")
    for lengths in LENGTHS[:3]:
        encoder.recompute_layers(True)
        encoder(chunk_of(rows_of(lengths)), None).sum().backward()
    assert breaks() == 0 and counters["stats"]["unique_graphs"] == 1


def test_checkpoints_do_not_tell() -> None:
    vocabulary = Vocabulary(VOCAB, (), IMAGE)
    plain, encoder = (
        Qwen2VLEncoder.from_config(CONFIG, compile=flag, vocabulary=vocabulary)
        for flag in (False, True)
    )
    assert list(plain.state_dict()) == list(encoder.state_dict())
    encoder.load_state_dict(plain.state_dict())
    plain.load_state_dict(encoder.state_dict())

    def marked(module: torch.nn.Module) -> list[bool]:
        return [block._compiled_call_impl is not None for block in recomputable(module)]

    assert marked(encoder.model.language_model) == [True, True]
    assert not any(marked(plain.model) + marked(encoder.model.visual))
    bert = TextEncoder.from_config(BERT, compile=True, vocabulary=vocabulary)
    assert marked(bert) == [True, True]
