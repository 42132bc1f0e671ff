"""The pure functions and types of one training step: features, pairs of each task, losses."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from polyqwen.data.batch import TaskBatch
from polyqwen.losses.candidates import available
from polyqwen.losses.negatives import NegativesFrom
from polyqwen.losses.types import LossOutput, Pairs
from polyqwen.metrics.types import PairEmbeddings
from polyqwen.models.projection import PartedProjection
from polyqwen.training.distributed import gather_batch, world_size


class Features(NamedTuple):
    """A batch's inputs on their way through the model's head.

    With a projection per task there is one row for each input and task that uses it.
    """

    pooled: Tensor  # (N, H), output of the pooling, which goes into the projection
    projected: Tensor  # (N, D)
    embeddings: Tensor  # (N, D), unit norm, fp32
    tasks: dict[str, TaskBatch]  # the batch's pairs; their indices point at these rows


def project_and_normalize(
    projection: nn.Module, pooled: Tensor, tasks: Mapping[str, TaskBatch], order: Sequence[str]
) -> Features:
    """Projects pooled vectors and scales them to unit norm, in training and in use alike.

    Args:
        projection: (N, H) -> (N, D), or a `PartedProjection` with one part per task.
        pooled: (N, H).
        tasks: the batch's pairs.
        order: all tasks of the run, as the projection's parts are ordered.
    """
    if isinstance(projection, PartedProjection):
        rows, sizes, tasks = split_inputs_by_task(tasks, order)
        pooled = pooled[rows]
        projected = projection(pooled, sizes)
    else:
        projected = projection(pooled)
    return Features(pooled, projected, F.normalize(projected.float(), dim=-1), dict(tasks))


def split_inputs_by_task(
    tasks: Mapping[str, TaskBatch], order: Sequence[str]
) -> tuple[Tensor, list[int], dict[str, TaskBatch]]:
    """Gives every task a copy of its own of the inputs that it uses.

    Args:
        tasks: the batch's pairs.
        order: all tasks of the run.

    Returns:
        (M,) indices of the inputs, task after task; the number of each task's in ``order``, 0 for
        an absent one; the pairs with their indices pointing at these M rows.
    """
    rows: list[Tensor] = []
    sizes, moved = [], {}
    for task in order:
        if task not in tasks:
            sizes.append(0)
            continue
        fields = {name: getattr(tasks[task], name) for name in ("query", "document", "negative")}
        given = {name: index for name, index in fields.items() if index is not None}
        used, place = torch.cat(list(given.values())).unique(return_inverse=True)
        places = (place + sum(sizes)).split([len(index) for index in given.values()])
        moved[task] = tasks[task]._replace(**dict(zip(given, places, strict=True)))
        rows.append(used)
        sizes.append(len(used))
    return torch.cat(rows) if rows else torch.zeros(0, dtype=torch.int64), sizes, moved


def pairs_of_task(
    embeddings: Tensor, rows: TaskBatch, negatives_from: NegativesFrom = "both"
) -> Pairs:
    """The embedded pairs of one task: its rows of the batch's (N, D) embeddings."""
    return Pairs(
        query=embeddings[rows.query],
        document=embeddings[rows.document],
        query_key=rows.query_key,
        document_key=rows.document_key,
        score=rows.score,
        negative=None if rows.negative is None else embeddings[rows.negative],
        negative_key=rows.negative_key,
        negative_row=rows.negative_row,
        label=rows.label,
        teacher_query=rows.teacher_query,
        teacher_document=rows.teacher_document,
        negatives_from=negatives_from,
    )


@torch.no_grad()
def batch_similarity_gap(pairs: Pairs) -> Tensor:
    """Mean cosine of matching pairs minus that of all other combinations in a batch: a scalar.

    A cheap monitor that stays on the device. `metrics.similarity.similarity_gap` measures a whole
    split and leaves equal texts and pictures out of the non-matching pairs.
    """
    cosines = pairs.query @ pairs.document.T  # (B, B)
    rows = len(cosines)
    matching = cosines.diagonal().mean()
    others = (cosines.sum() - cosines.diagonal().sum()) / max(rows * (rows - 1), 1)
    return matching - others


class StepLosses:
    """Applies every loss whose task is present in the batch.

    A task's own loss has the task's name. A task may have further losses, candidates of a library,
    that read the same pairs.

    Args:
        losses: name -> loss, for exactly ``order``.
        order: names of all losses as the weighting has them.
        further: the name of a further loss -> the task whose pairs it reads.
        negatives_from: task -> where its negatives come from, see `Pairs`; "both" for others.

    Attributes:
        modules: the losses, in that order.
        streams: the name of every loss -> the task whose pairs it reads.
        tasks: those that have a loss of their own name, in the same order.

    Raises:
        ValueError: a loss too few or too many, or one that reads no task's pairs.
    """

    def __init__(
        self,
        losses: Mapping[str, nn.Module],
        order: Sequence[str],
        further: Mapping[str, str],
        negatives_from: Mapping[str, NegativesFrom] = {},
    ) -> None:
        tasks = tuple(name for name in order if name not in further)
        check_names("losses", losses, order)
        check_names("streams", {*tasks, *further.values()}, tasks)
        self.modules = nn.ModuleDict({name: losses[name] for name in order})
        self.tasks = tasks
        self.streams = {name: further.get(name, name) for name in order}
        self.negatives_from = {task: negatives_from.get(task, "both") for task in tasks}

    def pairs(self, embeddings: Tensor, tasks: dict[str, TaskBatch]) -> dict[str, Pairs]:
        """Every present task's pairs of all ranks, in the order of the tasks; a collective.

        Args:
            embeddings: (N, D) of this rank.
            tasks: this rank's pairs of them.
        """
        if world_size() > 1:
            embeddings, tasks = gather_batch(embeddings, tasks, self.tasks)
        return {
            task: pairs_of_task(embeddings, tasks[task], self.negatives_from[task])
            for task in self.tasks
            if task in tasks
        }

    def outputs(self, pairs: Mapping[str, Pairs]) -> dict[str, LossOutput]:
        """Every loss whose task is present with what it needs; the same ones on all ranks."""
        given = {name: pairs[task] for name, task in self.streams.items() if task in pairs}
        return {
            name: self.modules[name](own)
            for name, own in given.items()
            if available(self.modules[name], own)
        }

    def totals(self, outputs: Mapping[str, LossOutput], device: torch.device) -> Tensor:
        """(T,) values of all losses with their graphs, NaN where one is absent."""
        blank = torch.full((), torch.nan, device=device)
        return torch.stack([outputs[n].total if n in outputs else blank for n in self.streams])

    def values(self, features: Features) -> Tensor:
        """(T,) `totals` of embedded pairs of all ranks; a collective."""
        outputs = self.outputs(self.pairs(features.embeddings, features.tasks))
        return self.totals(outputs, features.embeddings.device)

    def zero_from_unused_parameters(
        self, outputs: Mapping[str, LossOutput], device: torch.device
    ) -> Tensor:
        """Zero times every parameter of the absent losses, a scalar.

        Added to the step's loss, every parameter has a gradient in every step, as DDP expects.
        """
        absent = [loss for name, loss in self.modules.items() if name not in outputs]
        zero = torch.zeros((), device=device)
        return sum((p.sum() * 0.0 for loss in absent for p in loss.parameters()), zero)

    def evaluated(self, task: str, pairs: Pairs) -> PairEmbeddings:
        """One task's pairs as metrics take them; with logits where its loss has classes."""
        loss: Any = self.modules[task]
        return PairEmbeddings(
            pairs.query,
            pairs.document,
            pairs.query_key,
            pairs.document_key,
            pairs.score,
            pairs.label,
            None if pairs.label is None else loss.logits(pairs.query),
        )


class StepRecord(NamedTuple):
    """What the last training step (one micro-batch) computed, detached, for callbacks."""

    total: Tensor  # the loss that was trained on
    outputs: dict[str, LossOutput]  # by loss; totals before λ and boost
    weights: dict[str, Tensor]  # λ · boost, as applied, by loss
    gaps: dict[str, Tensor]  # mean cosine of matching minus other pairs, by task with pairs
    rows: dict[str, int]  # of all ranks, by task
    embeddings: Tensor  # (N, D), of this rank
    tasks: dict[str, TaskBatch]  # this rank's pairs of them
    finite: Tensor  # () bool: the forward pass is finite on all ranks; else the loss was zero


def check_names(kind: str, given: Collection[str], wanted: Collection[str]) -> None:
    """Raises `ValueError` where ``model.<kind>`` is not given for what there is."""
    if set(given) != set(wanted):
        raise ValueError(
            f"model.{kind} are given for {sorted(given)}, but there are {sorted(wanted)}"
        )


def check_usable(names: Iterable[str]) -> None:
    """Raises `ValueError` for a task's name that no part of a model can have."""
    taken = nn.ModuleDict()
    for name in names:
        if "." in name or hasattr(taken, name):
            raise ValueError(
                f"a task cannot be called {name!r}, which torch keeps for itself; choose another "
                f"name, such as {name.replace('.', '_')}_task"
            )
