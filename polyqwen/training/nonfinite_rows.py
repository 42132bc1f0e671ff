"""Which rows made losses or gradients of a step not finite; looked for in such a step only."""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from polyqwen.training.distributed import gather_objects
from polyqwen.training.module import EmbeddingModule
from polyqwen.training.step import StepRecord

# from the surest evidence to none at all
CAUSES = ("embedding", "score", "loss", "gradient of the loss", "gradient of the model")


class NonFiniteRows(NamedTuple):
    """Rows of one task that a step could not learn from.

    Attributes:
        micro_batch: of the step, counted from 0.
        rank: whose rows they are.
        task: that drew them.
        cause: what is not finite, one of `CAUSES`; with the last one no row is under suspicion
            more than another, and all are named.
        rows: their numbers in the task's split.
    """

    micro_batch: int
    rank: int
    task: str
    cause: str
    rows: list[int]


def find_nonfinite_rows(
    module: EmbeddingModule, records: Mapping[int, StepRecord]
) -> list[NonFiniteRows]:
    """The rows of all ranks that made a step not finite; a collective, the same on every rank.

    An embedding or a loss that is NaN names its rows for certain. Where all are finite, the losses
    are computed once more from the same embeddings, task by task, with their gradients.

    Args:
        module: as it was in the step.
        records: micro-batch of the step -> its record, the same ones on every rank.
    """
    rank = module.global_rank
    # surest: rows whose own embedding or score is not finite
    own = [bad for i, record in records.items() for bad in _of_contents(i, rank, record)]
    found = _of_all_ranks(own)
    known = {(bad.micro_batch, bad.task) for bad in found}
    # else by the losses of the tasks that had no such rows
    own = [bad for i, record in records.items() for bad in _of_losses(i, module, record)]
    found += [bad for bad in _of_all_ranks(own) if (bad.micro_batch, bad.task) not in known]
    if found:
        return found
    # else nothing points at any row: all of the step are named
    every = [
        NonFiniteRows(i, rank, task, CAUSES[-1], _numbers(batch.row))
        for i, record in records.items()
        for task, batch in record.tasks.items()
    ]
    return _of_all_ranks(every)


def nonfinite_parameters(module: torch.nn.Module) -> list[str]:
    """Names of parameters whose gradient is not finite on some rank; a collective."""
    names = [
        name
        for name, parameter in module.named_parameters()
        if parameter.grad is not None and not _finite(parameter.grad)
    ]
    return list(dict.fromkeys(name for names in gather_objects(names) for name in names))


def _finite(value: Tensor) -> bool:
    local = cast(Any, value).to_local() if isinstance(value, DTensor) else value
    return bool(local.isfinite().all())


def _of_all_ranks(own: list[NonFiniteRows]) -> list[NonFiniteRows]:
    # as plain tuples: a checkpoint or another process needs to know no class of ours
    gathered = gather_objects([tuple(bad) for bad in own])
    return sorted(NonFiniteRows(*bad) for of_rank in gathered for bad in of_rank)


def _of_contents(index: int, rank: int, record: StepRecord) -> Iterable[NonFiniteRows]:
    """Rows with a content or a score that is not finite."""
    bad = ~record.embeddings.isfinite().all(-1)  # (N,)
    for task, batch in record.tasks.items():
        rows = bad[batch.query] | bad[batch.document]  # (B,)
        if batch.negative is not None and batch.negative_row is not None:
            rows[batch.negative_row[bad[batch.negative]]] = True
        if rows.any():
            yield NonFiniteRows(index, rank, task, CAUSES[0], _numbers(batch.row[rows]))
        elif batch.score is not None and not batch.score.isfinite().all():
            wrong = batch.row[~batch.score.isfinite()]
            yield NonFiniteRows(index, rank, task, CAUSES[1], _numbers(wrong))


def _of_losses(index: int, module: EmbeddingModule, record: StepRecord) -> Iterable[NonFiniteRows]:
    """This rank's rows of losses, or their gradients, that are not finite."""
    embeddings = record.embeddings.detach().clone().requires_grad_()  # (N, D)
    with torch.enable_grad():
        pairs = module.step_losses.pairs(embeddings, record.tasks)
        outputs = module.step_losses.outputs(pairs)
    for name, output in outputs.items():
        task = module.streams[name]
        batch = record.tasks.get(task)  # absent here, present on another rank
        rows = [] if batch is None else _numbers(batch.row)
        if not record.outputs[name].total.isfinite():
            yield NonFiniteRows(index, module.global_rank, task, CAUSES[2], rows)
            continue
        (gradient,) = torch.autograd.grad(
            output.total, embeddings, retain_graph=True, allow_unused=True
        )
        if gradient is None or batch is None:
            continue
        bad = ~gradient.isfinite().all(-1)  # (N,)
        hit = bad[batch.query] | bad[batch.document]
        if hit.any():
            rows = _numbers(batch.row[hit])
            yield NonFiniteRows(index, module.global_rank, task, CAUSES[3], rows)


def _numbers(rows: Tensor) -> list[int]:
    return [int(row) for row in rows.tolist()]
