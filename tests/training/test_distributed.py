"""Ranks that share a batch: the same losses and gradients as one process with all rows."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.testing import assert_close

from polyqwen.data.batch import TaskBatch
from polyqwen.losses.classification import ClassificationLoss
from polyqwen.losses.negatives import NEGATIVES_FROM, NegativesFrom
from polyqwen.training.callbacks.rank_agreement import RankAgreement
from polyqwen.training.distributed import gather_batch, gather_rows
from polyqwen.training.step import pairs_of_task
from polyqwen.weighting.by_loss.static import StaticWeighting
from tests.losses.loss_cases import CASES
from tests.ranks import on_ranks

WIDTH = 6


def global_batch(rows: int, extra: int, seed: int) -> tuple[Tensor, TaskBatch]:
    """Contents (N, WIDTH), repeated ones among them, and the pairs over them."""
    generator = torch.Generator().manual_seed(seed)
    total = 2 * rows + extra
    pool = torch.randn(2 * rows, WIDTH, generator=generator)
    kind = torch.randint(2 * rows, (total,), generator=generator)
    hashed = torch.randint(-(2**62), 2**62, (len(pool),), generator=generator)
    query, document, negative = torch.arange(total).split([rows, rows, extra])
    batch = TaskBatch(
        query=query,
        document=document,
        query_key=hashed[kind[query]],
        document_key=hashed[kind[document]],
        row=torch.arange(rows),
        score=torch.randint(5, (rows,), generator=generator) / 4.0,
        negative=negative,
        negative_key=hashed[kind[negative]],
        negative_row=torch.randint(rows, (extra,), generator=generator),
        label=torch.randint(3, (rows,), generator=generator),
        teacher_query=F.normalize(torch.randn(2 * rows, 3, generator=generator))[kind[query]],
        teacher_document=None,
    )
    return pool[kind], batch


def shard(contents: Tensor, batch: TaskBatch, rows: slice) -> tuple[Tensor, TaskBatch]:
    """The rows of one rank with only the contents that they need, as a collator would give them."""
    first, last = rows.start, rows.stop
    given = (batch.negative_row >= first) & (batch.negative_row < last)
    needed = torch.cat([batch.query[rows], batch.document[rows], batch.negative[given]])
    sizes = [last - first, last - first, int(given.sum())]
    query, document, negative = torch.arange(len(needed)).split(sizes)
    own = TaskBatch(
        query=query,
        document=document,
        query_key=batch.query_key[rows],
        document_key=batch.document_key[rows],
        row=batch.row[rows],
        score=batch.score[rows],
        negative=negative if len(negative) else None,
        negative_key=batch.negative_key[given] if len(negative) else None,
        negative_row=batch.negative_row[given] - first if len(negative) else None,
        label=batch.label[rows],
        teacher_query=batch.teacher_query[rows],
    )
    return contents[needed], own


def loss_and_gradient(
    name: str, source: NegativesFrom, shards: list[dict[str, Any]], rank: int
) -> tuple[Tensor, Tensor]:
    """As DDP sees it: this rank's gradient of a shared weight, before the mean over ranks."""
    torch.manual_seed(0)
    weight = torch.randn(WIDTH, WIDTH).requires_grad_()
    contents = torch.cat([part for part, _ in shards[rank].values()])
    tasks, start = {}, 0
    for task, (part, batch) in shards[rank].items():
        moved = {
            field: getattr(batch, field) + start
            for field in ("query", "document", "negative")
            if getattr(batch, field) is not None
        }
        if len(batch.query):
            tasks[task] = batch._replace(**moved)
        start += len(part)
    embeddings = F.normalize(contents @ weight, dim=-1)
    if len(shards) > 1:
        embeddings, tasks = gather_batch(embeddings, tasks, ["first", "second"])
    loss = LOSSES[name]()
    total = embeddings.sum() * 0.0
    for factor, task in ((1.0, "first"), (2.0, "second")):
        if task in tasks:
            total = total + factor * loss(pairs_of_task(embeddings, tasks[task], source)).total
    total.backward()
    assert weight.grad is not None
    # DDP averages over ranks; a head of the loss has the whole gradient on each of them
    own = [p.grad.flatten() * 1.0 for p in loss.parameters() if p.grad is not None]
    return total.detach(), torch.cat([weight.grad.flatten(), *own])


def classifier() -> ClassificationLoss:
    torch.manual_seed(1)
    return ClassificationLoss(
        ["a", "b", "c"], WIDTH, uniformity_weight=0.3, contrast_weight=0.2, label_smoothing=0.1
    )


LOSSES = {**{name: case.build for name, case in CASES.items()}, "classification": classifier}
SIZES = {"equal": ([4, 4], [3, 3]), "unequal": ([6, 2], [1, 5])}
SIZES |= {"empty": ([8, 0], [6, 0]), "all_on_the_other": ([0, 8], [6, 0])}
# without a rank for a task in the middle, at the start and at the end; one rank with nothing
SIZES_OF_THREE = {
    "unequal": ([3, 1, 4], [1, 3, 2]),
    "empty": ([5, 0, 3], [0, 4, 2]),
    "nothing_at_all": ([2, 0, 6], [4, 0, 2]),
    "only_the_last": ([0, 0, 8], [1, 5, 0]),
}


def assert_equal_to_one_process(
    name: str, sizes_of_cases: dict[str, tuple[list[int], list[int]]]
) -> None:
    """Loss and mean gradient over ranks that hold ``sizes`` rows of two tasks, case by case."""
    cases = []
    for seed, (first, second) in enumerate(sizes_of_cases.values()):
        world = len(first)
        tasks = {"first": (global_batch(8, 16, seed), first)}
        tasks["second"] = (global_batch(6, 0, seed + 100), second)
        whole = {task: data for task, (data, _) in tasks.items()}
        shards = [
            {
                task: shard(*data, slice(sum(sizes[:rank]), sum(sizes[: rank + 1])))
                for task, (data, sizes) in tasks.items()
            }
            for rank in range(world)
        ]
        cases += [(source, whole, shards) for source in NEGATIVES_FROM]

    def run(rank: int) -> list[tuple[Tensor, Tensor]]:
        return [loss_and_gradient(name, source, shards, rank) for source, _, shards in cases]

    answers = on_ranks(world, run)
    for (source, whole, _), *ranks in zip(cases, *answers, strict=True):
        loss, gradient = loss_and_gradient(name, source, [whole], 0)
        assert gradient.abs().max() > 1e-2 or source != "both"  # the comparison is not vacuous
        assert_close(ranks[0][0], loss, atol=1e-5, rtol=1e-5)
        assert all(torch.equal(ranks[0][0], other) for other, _ in ranks)
        mean = torch.stack([own for _, own in ranks]).mean(0)
        assert_close(mean, gradient, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", LOSSES)
def test_two_ranks_equal_one_process(name: str) -> None:
    assert_equal_to_one_process(name, SIZES)


@pytest.mark.parametrize("name", ["info_nce", "triplet_given", "classification"])
def test_three_ranks_equal_one_process(name: str) -> None:
    assert_equal_to_one_process(name, SIZES_OF_THREE)


def test_gathered_columns_are_those_of_the_whole_batch() -> None:
    contents, batch = global_batch(7, 5, 3)

    def run(rank: int) -> tuple[Tensor, dict[str, TaskBatch]]:
        part, own = shard(contents, batch, slice(0, 5) if rank == 0 else slice(5, 7))
        return gather_batch(part, {"a": own}, ["a", "absent"])

    for embeddings, tasks in on_ranks(2, run):
        assert set(tasks) == {"a"}
        ours, theirs = pairs_of_task(embeddings, tasks["a"]), pairs_of_task(contents, batch)
        order = torch.cat(
            [torch.where(batch.negative_row < 5)[0], torch.where(batch.negative_row >= 5)[0]]
        )
        assert 0 < int((batch.negative_row < 5).sum()) < 5
        for field in ("query", "document", "query_key", "document_key", "score", "label"):
            assert torch.equal(getattr(ours, field), getattr(theirs, field))
        for field in ("negative", "negative_key", "negative_row"):
            assert torch.equal(getattr(ours, field), getattr(theirs, field)[order])


def test_gradient_reaches_only_the_own_rows() -> None:
    def run(rank: int) -> tuple[Tensor, Tensor]:
        rows = torch.full((rank + 1, 2), float(rank + 1), requires_grad=True)
        gathered = gather_rows(rows, [1, 2])
        (gathered * torch.tensor([[1.0], [10.0], [100.0]])).sum().backward()
        return gathered.detach(), rows.grad

    (all_rows, first), (_, second) = on_ranks(2, run)
    assert all_rows[:, 0].tolist() == [1.0, 2.0, 2.0]
    # times two: DDP divides the sum over ranks by their number
    assert first.tolist() == [[2.0, 2.0]] and second[:, 0].tolist() == [20.0, 200.0]


def test_statistics_of_ranks_are_added_before_weights_are_set() -> None:
    def run(rank: int, planted: bool) -> tuple[list[float], list[float]]:
        from polyqwen.weighting.by_loss.stw import StrategicTaskWeighting

        weighting = StrategicTaskWeighting(
            {"a": 1.0, "b": 1.0},
            alpha={},
            beta={"foundation": 1.0, "balance": 1.0, "until_step": None},
            min_samples=1,
            rate_limit=None,
        )
        # rank 0 sees both tasks, rank 1 only the second, with another loss
        weighting.observe(torch.tensor([1.0, 2.0]), torch.tensor([4, 4]) * (1 - rank))
        weighting.observe(torch.tensor([0.0, 5.0]), torch.tensor([0, 8]) * rank)
        if planted:
            weighting.sync = lambda: weighting.window.add_(weighting.pending)  # a rank on its own
        update = weighting.update(1)
        assert update is not None
        return weighting.weights(1).tolist(), list(update.mean_losses.values())

    first, second = on_ranks(2, run, False)
    assert first == second and first[1] == [1.0, 4.0]
    assert first[0][0] == pytest.approx(4 * first[0][1])
    alone, other = on_ranks(2, run, True)
    assert alone != other  # the comparison above is not vacuous


def test_a_loss_that_is_not_finite_on_one_rank_leaves_weights_equal() -> None:
    def run(rank: int) -> tuple[list[float], list[float]]:
        weighting = StaticWeighting({"a": 1.0, "b": 2.0})
        bad = torch.tensor([float("nan"), 2.0]) if rank else torch.tensor([1.0, 2.0])
        weighting.observe(bad, torch.tensor([4, 4]))
        weighting.sync()
        return weighting.window.flatten().tolist(), weighting.weights(1).tolist()

    first, second = on_ranks(2, run)
    assert first == second and all(value == value for value in first[0])


def test_ranks_with_different_settings_are_refused_on_all() -> None:
    def run(rank: int) -> str:
        callback = RankAgreement(["seed = 0", f"optimizer.backbone_lr = {rank}"])
        with pytest.raises(ValueError, match="rank 1 runs another configuration") as error:
            callback.setup(None, None, "fit")  # type: ignore[arg-type]
        RankAgreement(["seed = 0"]).setup(None, None, "fit")  # type: ignore[arg-type]
        return str(error.value)

    first, second = on_ranks(2, run)
    assert first == second and "optimizer.backbone_lr = 0" in first
