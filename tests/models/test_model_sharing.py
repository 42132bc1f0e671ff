"""What tasks share: a projection each that is tied, or adapters each, against slow equivalents."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from polyqwen.build.run import Parts, build
from polyqwen.data.tables.dataset import MultiTaskDataset
from polyqwen.losses.types import Pairs
from polyqwen.models.projection import PartedProjection, ResidualProjection
from polyqwen.models.tuning.sharing import AdaptedEncoder, LowRankLinear, SoftSharing
from polyqwen.training.step import pairs_of_task
from tests.conftest import Configure

TASKS = ("text_pair", "sentiment", "topic", "sentiment5", "intent")
RUN = [
    "model=tiny_text",
    "model.encoder.config.hidden_dropout_prob=0.0",
    f"task=[{','.join(TASKS)}]",
    "curriculum=single_phase",
    "weighting=static",
    "callbacks.boost=null",
    "model.encoder.residual_init=1.0",  # adapters of a block that starts as the identity do nothing
]


def drift(parts: Parts) -> None:
    """Makes the tasks' own parameters differ, as after training."""
    torch.manual_seed(3)
    with torch.no_grad():
        for name, parameter in parts.model.named_parameters():
            if "copies" in name or name.endswith((".up", ".down")):
                parameter.add_(0.1 * torch.randn_like(parameter))


def batch_of(parts: Parts, rows: int = 4) -> tuple[Any, Any]:
    dataset = MultiTaskDataset(parts.data.splits.tables("train"))
    given = [dataset[task, i] for task in TASKS for i in range(rows)]
    return given, parts.data.collator(given)


def test_penalty_by_hand() -> None:
    projection = ResidualProjection(2, 2)
    parted = PartedProjection(projection, 3, 0.5)
    assert parted.penalty().item() == pytest.approx(0.0, abs=1e-12)
    with torch.no_grad():
        parted.copies[0].alpha.fill_(1.0)  # the others stay at 0.5: mean 2/3
    assert parted.penalty().item() == pytest.approx(0.5 * ((1 / 3) ** 2 + 2 * (1 / 6) ** 2))
    parted.penalty().backward()
    assert parted.copies[0].alpha.grad.item() == pytest.approx(1 / 3)
    assert parted.copies[1].hidden.weight.grad is not None


@pytest.mark.parametrize("sharing", ["soft", "adapters"])
def test_starts_as_hard_sharing(configure: Configure, sharing: str) -> None:
    """The same seed draws the same weights; copies start equal and adapters at zero."""
    losses = {}
    for name in ("hard", sharing):
        torch.manual_seed(0)
        parts = build(configure(*RUN, f"model/sharing={name}"))
        parts.model.eval()
        if name == "hard":
            state = parts.model.losses.state_dict()
        else:
            parts.model.losses.load_state_dict(state)
        losses[name] = parts.model.training_step(batch_of(parts)[1], 0)
    assert_close(losses[sharing], losses["hard"])


@pytest.mark.parametrize("sharing", ["soft", "adapters"])
def test_every_task_goes_its_own_way(configure: Configure, sharing: str) -> None:
    """Each task alone, by a module that knows no other, gives the same embeddings."""
    parts = build(configure(*RUN, f"model/sharing={sharing}"))
    drift(parts)
    model = parts.model.eval()
    rows, batch = batch_of(parts)
    features = model.features(batch)
    for number, task in enumerate(TASKS):
        own = pairs_of_task(features.embeddings, features.tasks[task])
        alone = parts.data.collator(rows, only=task)
        hidden = []
        for chunk in alone.chunks:
            if sharing == "adapters":
                assert set(chunk.task.tolist()) == {number}
            hidden.append(model.pooling(model.encoder(chunk, None), chunk.mask))
        pooled = torch.cat(hidden)
        projection = model.projection
        if isinstance(projection, PartedProjection):
            projection = projection.copies[number]
        expected = nn.functional.normalize(projection(pooled), dim=-1)
        assert_close(own.query, expected[alone.tasks[task].query], atol=1e-5, rtol=1e-4)
        assert_close(own.document, expected[alone.tasks[task].document], atol=1e-5, rtol=1e-4)
    both = next(r for r in rows if {"sentiment", "topic"} <= r.labels.keys())
    two = model.features(parts.data.collator([both]))
    first, second = (two.embeddings[two.tasks[t].query] for t in ("sentiment", "topic"))
    assert (first - second).abs().max() > 1e-3


def test_soft_sharing_encodes_a_text_once(configure: Configure) -> None:
    parts = build(configure(*RUN, "model/sharing=soft"))
    rows, batch = batch_of(parts)
    labelled = [row for row in rows if row.labels]
    used = sum(len({r.query.key for r in rows if task in r.labels}) for task in TASKS[1:])
    contents = len({row.query.key for row in labelled})
    assert used > contents
    sides = {(r.task, s) for r in rows if r.task == "text_pair" for s in (r.query, r.document)}
    assert sum(len(chunk.ids) for chunk in batch.chunks) == contents + len(sides)
    assert len(parts.model.features(batch).embeddings) == used + len(sides)


@pytest.mark.parametrize("sharing", ["soft", "adapters"])
def test_an_absent_tasks_part_has_a_graph_and_no_gradient(
    configure: Configure, sharing: str
) -> None:
    parts = build(configure(*RUN, f"model/sharing={sharing}"))
    dataset = MultiTaskDataset(parts.data.splits.tables("train"))
    batch = parts.data.collator([dataset["intent", i] for i in range(4)])
    parts.model.training_step(batch, 0).backward()
    for name, parameter in parts.model.named_parameters():
        assert parameter.grad is not None, name
        if "copies.2" in name:
            assert not parameter.grad.any()
        if name.endswith(".up"):
            assert parameter.grad[4].any() and not parameter.grad[:4].any()


def test_low_rank_layer_by_hand() -> None:
    layer = LowRankLinear(nn.Linear(3, 2), parts=2, rank=1, alpha=2.0)
    with torch.no_grad():
        layer.up.copy_(torch.tensor([[[1.0], [0.0]], [[0.0], [1.0]]]))
        layer.down.fill_(1.0)
    layer.part = torch.tensor([1, 0])
    x = torch.arange(12.0).view(2, 2, 3)
    plain = layer.linear(x)
    change = 2.0 * x.sum(-1)
    expected = torch.stack(
        [
            torch.stack([torch.zeros(2), change[0]], -1),
            torch.stack([change[1], torch.zeros(2)], -1),
        ]
    )
    assert_close(layer(x) - plain, expected)


def test_frozen_adapters_train_nothing_else_of_the_encoder(configure: Configure) -> None:
    options = ("model/sharing=adapters", "model.sharing.freeze=true", "model.sharing.rank=2")
    model = build(configure(*RUN, *options)).model
    assert isinstance(model.encoder, AdaptedEncoder)
    trained = {n.rpartition(".")[2] for n, p in model.encoder.named_parameters() if p.requires_grad}
    assert trained == {"up", "down"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["model/sharing=adapters", "model.sharing.targets=[qery]"], "no linear layers of these"),
        (["model/sharing=adapters", "model.sharing.rank=0"], "rank must be >= 1"),
        (["model/sharing=soft", "model.sharing.strength=-1"], "strength"),
        (["model/sharing=soft", "model/projection=identity"], "projection with parameters"),
    ],
)
def test_bad_sharing(configure: Configure, options: list[str], message: str) -> None:
    cfg = configure(*RUN, *options)
    if "model/projection=identity" in options:
        del cfg.model.projection.output_size
    with pytest.raises(ValueError, match=message):
        build(cfg)


@pytest.mark.parametrize("sharing", ["soft", "adapters"])
def test_two_ranks_equal_one_process(configure: Configure, tmp_path: Path, sharing: str) -> None:
    from tests.ranks import on_ranks
    from tests.training.test_resume import Result, fit

    options = [*RUN, f"model/sharing={sharing}"]

    def run(rank: int) -> Result:
        own = ("trainer.devices=2", "data.rows_per_task=3")
        return fit(configure, tmp_path / "two", *options, *own, weighting=())

    one = fit(configure, tmp_path / "one", *options, "data.rows_per_task=6", weighting=())
    two = on_ranks(2, run)
    ours, theirs = (torch.cat([g.flatten() for g in r.gradients]) for r in (two[0], one))
    assert theirs.norm() > 0.1 and (ours - theirs).norm() < 1e-5 * theirs.norm()
    assert two[0].losses == two[1].losses
    assert two[0].losses == pytest.approx(one.losses, rel=1e-5)


def test_losses_see_the_rows_of_their_task_only(configure: Configure) -> None:
    parts = build(configure(*RUN, "model/sharing=soft"))
    drift(parts)
    _, batch = batch_of(parts)
    features = parts.model.features(batch)
    total = parts.model.training_step(batch, 0)
    by_hand: Any = parts.model.projection.penalty()
    for task in TASKS:
        pairs: Pairs = pairs_of_task(features.embeddings, features.tasks[task])
        by_hand = by_hand + parts.model.losses[task](pairs).total
    assert_close(total, by_hand)
    assert SoftSharing().separate is False
