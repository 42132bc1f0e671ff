"""Collectives: one global batch out of all ranks' shards, with exact gradients."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import distributed_c10d
from torch.nn import functional as F

from polyqwen.data.batch import TaskBatch

_INDICES = ("query", "document", "negative")  # point at contents: shifted behind other ranks'
_VECTORS = ("teacher_query", "teacher_document")
_FLOATS = ("score", *_VECTORS)


def to_device_async(numbers: Sequence[int], device: torch.device) -> Tensor:
    """(N,) int64 on a device; the host goes on without waiting for the copy.

    ``torch.tensor(…, device="cuda")`` copies from pageable memory, and so waits until all work
    under way is done.
    """
    held = torch.tensor(numbers)
    if device.type == "cuda":
        held = held.pin_memory()
    return held.to(device, non_blocking=True)


def world_size() -> int:
    """Number of ranks; 1 without a process group."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def is_first() -> bool:
    """Whether this is rank 0."""
    return world_size() == 1 or dist.get_rank() == 0


def gather_objects(value: Any) -> list[Any]:
    """One picklable value per rank; a collective."""
    values = [value] * world_size()
    if world_size() > 1:
        dist.all_gather_object(values, value)
    return values


class Flag:
    """A flag that any rank sets and all ranks can read, without a collective.

    It lies in the key-value store through which the ranks found each other.

    Args:
        name: the same on all ranks.
    """

    def __init__(self, name: str) -> None:
        self._store, self._name = distributed_c10d._get_default_store(), f"polyqwen/{name}"

    def set(self) -> None:
        """Sets it, for good."""
        self._store.set(self._name, "1")

    def is_set(self) -> bool:
        """Whether any rank set it."""
        return bool(self._store.check([self._name]))


def gather_rows(rows: Tensor, sizes: Sequence[int]) -> Tensor:
    """All ranks' rows one after another: (N_r, …) → (Σ N_r, …), the same on every rank.

    Gradient: each rank computes the *same* loss of the gathered rows, so the gradient with respect
    to its own rows is the slice that belongs to them. It is multiplied by the number of ranks,
    because DDP averages parameter gradients where their sum is wanted. Backward needs no
    communication.

    Args:
        rows: this rank's shard; shards may differ in length, also be empty.
        sizes: length of every rank's shard.
    """
    return _GatherRows.apply(rows, tuple(sizes)) if len(sizes) > 1 else rows


class _GatherRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, sizes: tuple[int, ...]) -> Tensor:
        rank = dist.get_rank()
        ctx.start, ctx.size, ctx.world = sum(sizes[:rank]), sizes[rank], len(sizes)
        padding = [0, 0] * (rows.dim() - 1) + [0, max(sizes) - len(rows)]
        padded = F.pad(rows, padding).contiguous()
        shards = [torch.empty_like(padded) for _ in sizes]
        dist.all_gather(shards, padded)
        return torch.cat([shard[:size] for shard, size in zip(shards, sizes, strict=True)])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0].narrow(0, ctx.start, ctx.size) * ctx.world, None


def gather_batch(
    embeddings: Tensor, tasks: Mapping[str, TaskBatch], order: Sequence[str]
) -> tuple[Tensor, dict[str, TaskBatch]]:
    """Embeddings and pairs of all ranks as one batch; three collectives, the same on every rank.

    Args:
        embeddings: (N, D), this rank's contents.
        tasks: this rank's pairs; a task may be absent here and present elsewhere.
        order: all tasks of the run, in the order that every rank uses.

    Returns:
        (Σ N_r, D) embeddings and the pairs of all ranks, tasks in ``order``.
    """
    # this rank's shard: its sizes as a header of fixed length, its columns as one row of int64
    header = [len(embeddings)]
    for task in order:
        header += _column_lengths(tasks.get(task))
    own = to_device_async(header, embeddings.device)
    columns = [_pack(tasks[task]) for task in order if task in tasks]
    payload = torch.cat(columns) if columns else own.new_empty(0)
    # every rank learns all sizes, then cuts the gathered columns by them
    headers = gather_rows(own[None], [1] * world_size()).tolist()
    lengths = [sum(h[1:]) for h in headers]
    packed = gather_rows(payload, lengths).split(lengths)
    # back to pairs by task; a rank's indices move behind the embeddings of the ranks before it
    contents = [h[0] for h in headers]
    shards: dict[str, list[TaskBatch]] = {task: [] for task in order}
    for rank, (flat, numbers) in enumerate(zip(packed, headers, strict=True)):
        unread = iter(flat.split(numbers[1:]))
        for task in order:
            own_columns = list(islice(unread, len(TaskBatch._fields)))
            if len(own_columns[0]):
                shards[task].append(_unpack(own_columns, sum(contents[:rank])))
    joined = {task: _join(parts) for task, parts in shards.items() if parts}
    return gather_rows(embeddings, contents), joined


def _column_lengths(batch: TaskBatch | None) -> list[int]:
    """Numbers in each column of a task's rows, 0 for one that is None; all 0 for an absent task."""
    columns: Iterable[Tensor | None] = [None] * len(TaskBatch._fields) if batch is None else batch
    return [0 if column is None else column.numel() for column in columns]


def _pack(batch: TaskBatch) -> Tensor:
    """All columns as one row of int64; floats by their bits."""
    bits = {n: c.view(torch.int32).long() for n in _FLOATS if (c := getattr(batch, n)) is not None}
    columns = batch._replace(**bits)
    return torch.cat([column.flatten() for column in columns if column is not None])


def _unpack(columns: Sequence[Tensor], shift: int) -> TaskBatch:
    """One task's rows of one rank from its columns of int64, with the indices moved by `shift`."""
    batch = TaskBatch(*(column if len(column) else None for column in columns))  # type: ignore[arg-type]  # None only where it may be
    floats = {
        n: c.int().view(torch.float32) for n in _FLOATS if (c := getattr(batch, n)) is not None
    }
    for name in floats.keys() & set(_VECTORS):
        floats[name] = floats[name].view(len(batch.query), -1)
    moved = {n: c + shift for n in _INDICES if (c := getattr(batch, n)) is not None}
    return batch._replace(**moved, **floats)


def _join(parts: list[TaskBatch]) -> TaskBatch:
    """Shards of one task, rank after rank; positions of hard negatives' rows move along."""
    start, moved = 0, []
    for part in parts:
        if part.negative_row is not None:
            part = part._replace(negative_row=part.negative_row + start)
        start += len(part.query)
        moved.append(part)
    columns = [[c for c in column if c is not None] for column in zip(*moved, strict=True)]
    return TaskBatch(*(torch.cat(column) if column else None for column in columns))  # type: ignore[arg-type]
