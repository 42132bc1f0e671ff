"""What is trained of the encoder: adapters, trained rows, last layers; merged, resumed, cached."""

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from omegaconf import OmegaConf
from torch import Tensor, nn
from torch.testing import assert_close

from polyqwen.build.run import Parts, build
from polyqwen.inference.model import EmbeddingModel
from polyqwen.models.tuning.merging import load_trained, merge, save_trained, trained_state
from polyqwen.models.tuning.strategies import LastLayers, LoraTuning, TrainedRows
from polyqwen.runs.weights import load_weights
from tests.conftest import Configure
from tests.models.test_large_batch import gradients, made, relative
from tests.training.test_module import batch_of
from tests.training.test_resume import assert_same, fit

TINY = ["model.encoder.freeze_vision=true", "data.chunk_tokens=96", "weighting=static"]
TEXT = ["task=[text_pair]", "data.chunk_tokens=96", "weighting=static"]
MODELS = {
    "qwen2_vl": TINY,
    "qwen2_5_vl": ["model=tiny_qwen2_5_vl", *TINY],
    "qwen3_vl": ["model=tiny_qwen3_vl", *TINY],
    "qwen3": ["model=tiny_qwen3", *TEXT],
    "bert": ["model=tiny_text", *TEXT],
}
every_model = pytest.mark.parametrize("model", MODELS)
adapters = pytest.mark.parametrize("tuning", ["lora", "dora"])
LORA = ["model/tuning=lora", "model.tuning.rank=4", "model.tuning.dropout=0.2"]


def tuned(configure: Configure, model: str, tuning: str, *options: str) -> Parts:
    """Built, and with everything that is trained moved away from where it starts."""
    parts = build(configure(*MODELS[model], f"model/tuning={tuning}", *options))
    drift(parts.model)
    return parts


def drift(model: nn.Module) -> None:
    with torch.no_grad():
        for parameter in trained_state(model).values():
            parameter.add_(0.05 * torch.randn_like(parameter))


def trained(parts: Parts) -> set[str]:
    return {n for n, p in parts.model.encoder.named_parameters() if p.requires_grad}


@every_model
@adapters
def test_merged_equals_adapted_and_has_the_keys_of_a_plain_model(
    configure: Configure, model: str, tuning: str
) -> None:
    parts = tuned(configure, model, tuning)
    plain = build(configure(*MODELS[model]))
    batch = batch_of(parts, parts.model.tasks)
    parts.model.eval()
    with torch.no_grad():
        adapted = parts.model(batch)
        untuned = {k: v.clone() for k, v in parts.model.encoder.state_dict().items()}
        merge(parts.model.encoder)
        assert_close(parts.model(batch), adapted, atol=1e-5, rtol=1e-5)
    plain.model.load_state_dict(parts.model.state_dict())  # strict
    with torch.no_grad():
        assert_close(plain.model.eval()(batch), adapted, atol=1e-5, rtol=1e-5)
    changed = plain.model.encoder.state_dict()
    base = {k.replace(".base_layer", "").replace(".table", ""): v for k, v in untuned.items()}
    moved = [k for k, v in changed.items() if not torch.equal(v, base[k])]
    assert len(moved) > 5  # the adapters said something


@every_model
@adapters
def test_adapters_rows_and_head_are_trained_and_nothing_else(
    configure: Configure, model: str, tuning: str
) -> None:
    parts = tuned(configure, model, tuning)
    names = trained(parts)
    kinds = {n.split(".")[-3] if "lora_" in n else n.rpartition(".")[2] for n in names}
    expected = {"lora_A", "lora_B", "rows"} | (
        {"lora_magnitude_vector"} if tuning == "dora" else set()
    )
    assert kinds == expected
    assert not any("visual" in n for n in names)
    with torch.no_grad():
        for name, parameter in parts.model.named_parameters():
            if name.endswith("queries"):
                parameter.normal_()
    parts.model.training_step(batch_of(parts, parts.model.tasks), 0).backward()
    silent = [n for n, p in parts.model.named_parameters() if p.requires_grad and not p.grad.any()]
    assert silent == []
    groups = parts.model.configure_optimizers()["optimizer"].param_groups
    given = [id(p) for group in groups for p in group["params"]]
    assert sorted(given) == sorted(id(p) for p in parts.model.parameters() if p.requires_grad)
    backbone = next(g for g in groups if g["name"] == "backbone")
    assert {id(p) for n, p in parts.model.encoder.named_parameters() if "lora_A" in n} <= {
        id(p) for p in backbone["params"]
    }


@pytest.mark.parametrize("model", ["qwen2_vl", "bert"])
@adapters
@pytest.mark.parametrize("mode", ["checkpoint", "cached"])
def test_large_batches_have_the_gradients_of_a_plain_step(
    configure: Configure, model: str, tuning: str, mode: str
) -> None:
    options = [f"model/tuning={tuning}", "model.tuning.dropout=0.2"]
    parts = made(configure, [*MODELS[model], *options])
    drift(parts.model)
    batch = batch_of(parts, parts.model.tasks, rows=6)
    truth = gradients(parts, batch, "off")
    assert relative(gradients(parts, batch, mode), truth) < 1e-6
    assert relative(gradients(parts, batch, "off", seed=6), truth) > 1e-2  # dropout was at work


@pytest.mark.parametrize(
    "options", [LORA, [*LORA, "model.tuning.dora=true"], ["model/tuning=last_layers"]], ids=str
)
def test_resumed_runs_equal_the_run_through(
    configure: Configure, tmp_path: Path, options: list[str]
) -> None:
    through = fit(configure, tmp_path / "a", *options)
    resumed = fit(configure, tmp_path / "b", *options, ckpt=tmp_path / "a" / "4.ckpt")
    assert_same_few(resumed, through)
    pl.seed_everything(0, workers=True, verbose=False)
    start = build(configure(*options)).model.state_dict()
    frozen = [n for n in start if n.endswith("layers.0.mlp.up_proj.base_layer.weight")]
    for name in frozen:
        assert torch.equal(through.state[name], start[name])


def assert_same_few(resumed: Any, through: Any) -> None:
    """As `assert_same`, which counts on many moments."""
    many = [*through.optimizer] + [torch.zeros(1)] * 101
    assert_same(
        resumed._replace(optimizer=[*resumed.optimizer] + [torch.zeros(1)] * 101),
        through._replace(optimizer=many),
        4,
    )


def test_trained_rows_by_hand() -> None:
    table = nn.Embedding(5, 3)
    before = table.weight.detach().clone()
    rows = TrainedRows(table, [4, 2])
    ids = torch.tensor([[0, 2, 4], [4, 1, 3]])
    assert_close(rows(ids), before[ids], atol=0, rtol=0)
    rows(ids).square().sum().backward()
    assert table.weight.grad is None
    assert_close(rows.rows.grad, torch.stack([4 * before[4], 2 * before[2]]))
    with torch.no_grad():
        rows.rows.add_(1.0)
    expected = rows(ids)
    assert_close(rows.merged()(ids), expected, atol=0, rtol=0)
    assert_close(rows.merged().weight[[0, 1, 3]], before[[0, 1, 3]], atol=0, rtol=0)


@pytest.mark.parametrize("new_tokens", [True, False])
@pytest.mark.parametrize("model", ["qwen2_vl", "qwen3", "bert"])
def test_layers_below_the_last_are_frozen_and_without_a_graph(
    configure: Configure, model: str, new_tokens: bool
) -> None:
    parts = tuned(configure, model, "last_layers", f"model.tuning.new_tokens={new_tokens}")
    encoder = parts.model.encoder
    layers = [
        m
        for n, m in encoder.text_model.named_modules()
        if n.endswith(("layers.0", "layer.0", "layers.1", "layer.1"))
    ]
    outputs: list[Tensor] = []
    for layer in layers:
        layer.register_forward_hook(lambda *a: outputs.append(a[2]))
    parts.model.training_step(batch_of(parts, parts.model.tasks), 0).backward()
    assert len(layers) == 2 and len(outputs) % 2 == 0
    graphs = {(i % 2, bool(out.requires_grad)) for i, out in enumerate(outputs)}
    assert graphs == {(0, new_tokens), (1, True)}
    assert all(p.grad is None for p in layers[0].parameters())
    assert all(p.grad is not None for p in layers[1].parameters())
    rows = [n for n in trained(parts) if n.endswith(".rows")]
    assert len(rows) == new_tokens
    other = {n for n in trained(parts) if not n.endswith(".rows")}
    assert all(".1." in n or n.endswith("model.norm.weight") for n in other)
    merged = merge(encoder)
    assert (
        merged.state_dict().keys()
        == build(configure(*MODELS[model])).model.encoder.state_dict().keys()
    )


def test_a_tuned_run_starts_from_an_untuned_one(configure: Configure, tmp_path: Path) -> None:
    fit(configure, tmp_path / "full")
    checkpoint = tmp_path / "full" / "6.ckpt"
    full, lora = (build(configure(*options)) for options in ([], LORA))
    load_weights(full.model, checkpoint)
    load_weights(lora.model, checkpoint)
    batch = batch_of(full)
    with torch.no_grad():
        theirs = full.model.eval()(batch)
        assert_close(lora.model.eval()(batch), theirs, atol=1e-6, rtol=1e-5)
    saved = torch.load(checkpoint, weights_only=True)
    for part in (
        "encoder.model.language_model.layers.0.self_attn.q_proj.weight",
        "pooling.queries",
    ):
        broken = {n: v for n, v in saved["state_dict"].items() if n != part}
        torch.save({**saved, "state_dict": broken}, tmp_path / "broken.ckpt")
        with pytest.raises(ValueError, match="does not fit this model's"):
            load_weights(lora.model, tmp_path / "broken.ckpt")


def test_what_was_trained_in_a_small_file(configure: Configure, tmp_path: Path) -> None:
    parts = tuned(configure, "qwen2_vl", "lora", "model.tuning.rank=1")
    file = tmp_path / "trained.safetensors"
    save_trained(parts.model.encoder, file)
    whole = sum(v.nbytes for v in parts.model.encoder.state_dict().values())
    assert file.stat().st_size < whole / 10
    other = build(configure(*MODELS["qwen2_vl"], "model/tuning=lora", "model.tuning.rank=1"))
    frozen = {n: p for n, p in parts.model.encoder.named_parameters() if not p.requires_grad}
    other.model.encoder.load_state_dict(frozen, strict=False)
    load_trained(other.model.encoder, file)
    for name, value in parts.model.encoder.state_dict().items():
        assert torch.equal(other.model.encoder.state_dict()[name], value), name
    with pytest.raises(ValueError, match="build the model with the run's model and tuning"):
        load_trained(build(configure(*MODELS["qwen2_vl"])).model.encoder, file)
    rank = build(configure(*MODELS["qwen2_vl"], "model/tuning=lora", "model.tuning.rank=2"))
    with pytest.raises(ValueError, match=r"is .1, .*, and the model's .2, "):
        load_trained(rank.model.encoder, file)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["model/tuning=lora", "model.tuning.targets=[nothing]"], "it has .*q_proj"),
        (["model/tuning=lora", "model/sharing=adapters"], "choose one of them"),
        (["model/tuning=last_layers", "model.tuning.layers=3"], "but the model has 2; lower it"),
    ],
)
def test_what_does_not_fit_is_refused(configure: Configure, options: list[str], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        build(configure(*options))


def test_numbers_out_of_range_are_named() -> None:
    for wrong in ({"rank": 0}, {"alpha": 0.0}, {"dropout": 1.0}):
        with pytest.raises(ValueError, match="rank must be >= 1, alpha > 0"):
            LoraTuning(**wrong)
    with pytest.raises(ValueError, match="at least 1, got 0"):
        LastLayers(0)


def test_a_loaded_model_is_merged_and_equal(configure: Configure, tmp_path: Path) -> None:
    cfg = configure(*LORA, "model=tiny_qwen3_vl", f"run_dir={tmp_path}")
    parts = build(cfg)
    drift(parts.model)
    OmegaConf.save(cfg, tmp_path / "config.yaml", resolve=True)
    (tmp_path / "checkpoints").mkdir()
    state = {"state_dict": parts.model.state_dict(), "prefixes": parts.model.prefixes}
    torch.save(state, tmp_path / "checkpoints" / "last.ckpt")
    model = EmbeddingModel.load(tmp_path)
    assert model.geometry.patch_size == 16
    assert not any("lora" in name for name in model.network.state_dict())
    batch = batch_of(parts, ["ocr"])
    with torch.no_grad():
        theirs = parts.model.eval()(batch)
        features = model._embed(batch, "ocr")
    ours = torch.nn.functional.normalize(features, dim=-1)
    assert_close(ours, theirs[batch.tasks["ocr"].query], atol=1e-5, rtol=1e-5)
