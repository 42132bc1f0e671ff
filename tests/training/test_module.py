"""The module: what a training step computes, and that every part of it is trained."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from torch.testing import assert_close

from polyqwen.build.run import Parts, build
from polyqwen.build.trainer import build_trainer
from polyqwen.data.batch import Batch
from polyqwen.data.tables.dataset import MultiTaskDataset
from polyqwen.training.module import EmbeddingModule
from polyqwen.training.optimizer import adamw, decays
from polyqwen.training.step import batch_similarity_gap, pairs_of_task
from tests.conftest import ROOT, Configure

TASKS = ("text_pair", "ocr", "vqa_single", "vqa_multi")


def batch_of(parts: Parts, tasks: Sequence[str] = TASKS, rows: int = 4) -> Batch:
    dataset = MultiTaskDataset(parts.data.splits.tables("train"))
    return parts.data.collator([dataset[task, i] for task in tasks for i in range(rows)])


def test_embeddings_have_unit_norm_and_differ(parts: Parts) -> None:
    embeddings = parts.model(batch_of(parts))
    assert_close(embeddings.norm(dim=-1), torch.ones(len(embeddings)))
    cosines = embeddings @ embeddings.T
    assert (cosines[~torch.eye(len(cosines), dtype=torch.bool)] < 0.999).all()


def test_the_loss_is_the_weighted_sum_of_the_tasks(parts: Parts) -> None:
    model, batch = parts.model, batch_of(parts)
    model.boost["text_pair"] = 2.0
    total = model.training_step(batch, 0)
    embeddings = model(batch)
    by_hand = 0.0
    for task, weight in zip(TASKS, (1.0, 1.0, 1.0, 1.2), strict=True):
        own = model.losses[task](pairs_of_task(embeddings, batch.tasks[task])).total
        by_hand += 1.05 * weight * (2.0 if task == "text_pair" else 1.0) * own  # beta 1.05
    assert_close(total, by_hand)
    assert model.record is not None and model.record.rows == dict.fromkeys(TASKS, 4)


def test_every_trainable_parameter_gets_a_gradient(parts: Parts) -> None:
    with torch.no_grad():
        parts.model.pooling.queries.normal_()
    parts.model.training_step(batch_of(parts), 0).backward()
    silent = [
        name
        for name, p in parts.model.named_parameters()
        if p.requires_grad and (p.grad is None or not p.grad.abs().sum() > 0)
    ]
    assert silent == []


@pytest.mark.parametrize("tasks", [("ocr",), ("text_pair",), ("vqa_multi", "text_pair")])
def test_a_missing_task_counts_for_nothing(parts: Parts, tasks: tuple[str, ...]) -> None:
    """Also a batch without pictures: ``text_pair`` alone."""
    total = parts.model.training_step(batch_of(parts, tasks), 0)
    total.backward()
    counts = parts.model.weighting.sums.rows.tolist()
    assert counts == [4.0 if task in tasks else 0.0 for task in TASKS]
    assert torch.isfinite(total) and total > 0
    assert set(parts.model.record.outputs) == set(tasks)


def test_a_batch_of_one_row_per_task_is_defined(parts: Parts) -> None:
    with pytest.warns(UserWarning, match="nothing to contrast"):
        total = parts.model.training_step(batch_of(parts, rows=1), 0)
    total.backward()
    grads = [p.grad for p in parts.model.parameters() if p.grad is not None]
    assert grads and all(torch.isfinite(g).all() for g in grads)


def test_a_batch_with_no_task_has_a_graph_and_no_gradient(parts: Parts) -> None:
    batch = batch_of(parts)._replace(tasks={})
    total = parts.model.training_step(batch, 0)
    total.backward()
    assert total == 0
    assert all(not p.grad.any() for p in parts.model.parameters() if p.grad is not None)


def test_hard_negatives_reach_the_loss(configure: Configure, parts: Parts) -> None:
    dataset = MultiTaskDataset(parts.data.splits.tables("train"))
    rows = [dataset["ocr", i] for i in range(3)]
    rows = [
        row._replace(negatives=(dataset["ocr", 10 + i].document,)) for i, row in enumerate(rows)
    ]
    batch = parts.data.collator(rows)
    own = batch.tasks["ocr"]
    assert own.negative_row.tolist() == [0, 1, 2] and len(own.negative) == 3
    chance = parts.model.losses["ocr"](pairs_of_task(parts.model(batch), own)).chance
    assert_close(chance, torch.tensor(6.0).log())


def test_similarity_gap_by_hand(parts: Parts) -> None:
    batch = batch_of(parts, ("ocr",))
    pairs = pairs_of_task(parts.model(batch), batch.tasks["ocr"])
    cosines = pairs.query @ pairs.document.T
    off = cosines[~torch.eye(4, dtype=torch.bool)].mean()
    assert_close(batch_similarity_gap(pairs), cosines.diagonal().mean() - off)


def test_optimizer_groups_are_the_papers(parts: Parts) -> None:
    model = parts.model
    made = adamw(
        model.encoder,
        torch.nn.ModuleList([model.pooling, model.projection]),
        total_steps=100,
        backbone_lr=1e-4,
        head_lr=3e-4,
        backbone_weight_decay=0.001,
        head_weight_decay=0.05,
        warmup_fraction=0.1,
    )
    groups = {g["name"]: g for g in made["optimizer"].param_groups}
    assert {n: (g["initial_lr"], g["weight_decay"]) for n, g in groups.items()} == {
        "backbone": (1e-4, 0.001),
        "backbone_no_decay": (1e-4, 0.0),
        "head": (3e-4, 0.05),
        "head_no_decay": (3e-4, 0.0),
    }
    plain = {id(p) for p in groups["head_no_decay"]["params"]}
    assert {id(model.pooling.queries), id(model.projection.alpha)} <= plain
    assert sum(len(g["params"]) for g in groups.values()) == len(list(model.parameters()))
    assert not decays("norm.weight", torch.nn.Parameter(torch.ones(3)))


def test_frozen_vision_is_in_no_group(configure: Configure) -> None:
    model = build(configure("model.encoder.freeze_vision=true")).model
    optimizer: Any = model.configure_optimizers()["optimizer"]
    trained = {id(p) for g in optimizer.param_groups for p in g["params"]}
    assert trained and not trained & {id(p) for p in model.encoder.model.visual.parameters()}


def test_tasks_losses_and_metrics_must_agree(parts: Parts) -> None:
    model = parts.model
    with pytest.raises(ValueError, match=r"model\.losses are given for"):
        EmbeddingModule(
            model.encoder,
            model.pooling,
            model.projection,
            losses={"ocr": model.losses["ocr"]},
            weighting=model.weighting,
            metrics=dict(model.metrics.items()),
            optimizer=model.optimizer,
        )


class Modes(pl.Callback):
    """Whether the encoder's parts are in training mode, at each step."""

    def __init__(self) -> None:
        self.seen: list[dict[str, bool]] = []

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: Any, *_: object) -> None:
        self.seen.append({n: m.training for n, m in pl_module.encoder.named_modules()})


@pytest.mark.parametrize(
    ("tiny", "published"), [("tiny_text", "bge_large"), ("tiny", "qwen2_vl_2b")]
)
def test_published_weights_are_trained_with_dropout(
    configure: Configure, tmp_path: Path, tiny: str, published: str
) -> None:
    """Hugging Face hands them out in evaluation mode; a frozen vision tower stays in it."""
    text = ["task=[text_pair]", "curriculum=single_phase", "curriculum.total_steps=2"]
    first = build(configure(f"model={tiny}", *text)).model.encoder
    first.model.save_pretrained(tmp_path / "published")
    options = [f"model={published}", f"model.encoder.name={tmp_path / 'published'}"]
    options.append(f"model.tokens.tokenizer={ROOT / 'polyqwen/assets/tiny_tokenizer'}")
    revisions = ["model.encoder.revision=null", "model.tokens.revision=null"]
    cfg = configure(*options, *revisions, *text, f"run_dir={tmp_path / 'run'}")
    parts, trainer, modes = build(cfg), build_trainer(cfg), Modes()
    trainer.callbacks.append(modes)
    trainer.fit(parts.model, datamodule=parts.data)
    assert len(modes.seen) == 2
    for seen in modes.seen:
        vision = {name for name in seen if name.startswith("model.visual")}
        assert {name for name, training in seen.items() if not training} == vision
    assert bool(vision) is (tiny == "tiny")
