"""Batch samplers of one process: micro-batches of a training, batches of an evaluation.

`split_step` cuts a step's rows into micro-batches and ranks, `MicroBatchSampler` and `RowBatches`
feed a DataLoader.
"""

from collections.abc import Callable, Iterator, Mapping
from heapq import heapify, heappop, heappush
from math import lcm
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Sampler

from polyqwen.data.sampling.permutation import Rows
from polyqwen.data.sampling.sampler import StepSampler

Costs = Mapping[str, NDArray[Any]] | Callable[[str, Rows], NDArray[Any]]


def split_step(
    rows: Mapping[str, Rows],
    costs: Mapping[str, NDArray[Any]] | None,
    accumulate: int = 1,
    world: int = 1,
    offset: int = 0,
) -> list[dict[str, Rows]]:
    """Cuts a step's rows into A micro-batches × W ranks of equal size and near-equal cost.

    The number of rows differs by at most one, for each task and for all of them together,

    - between *gathered* micro-batches (all ranks of one), which is what in-batch negatives are
      drawn from,
    - between all cells, so also between the ranks of a micro-batch;

    a rank's rows of the whole step differ by at most two. Proof: of n rows each of the A · W cells
    gets ⌊n / AW⌋, and the o < AW left over go one each to o consecutive places of a cycle through
    all cells, on which the next task goes on. The cycle steps to the next micro-batch every time
    (place k belongs to micro-batch k mod A), so any run of it meets every micro-batch ⌊o / A⌋ or
    ⌈o / A⌉ times, and no cell twice. Tasks together are one longer run, of which the same holds.
    Ranks take turns in blocks of lcm(A, W) places (place k belongs to rank k + ⌊k / lcm⌋ mod W,
    which meets every cell once); a run is whole blocks, even over ranks, and a part of a block at
    either end, each even up to one.

    Inside a task, rows are dealt from the dearest to the cheapest, each to the cell with the least
    cost so far that has room (LPT: Graham 1969), so later tasks even out what earlier ones left.

    Args:
        rows: task -> row indices of the step.
        costs: task -> one cost per row (e.g. tokens), >= 0; None counts rows.
        accumulate: A, micro-batches in the step, >= 1.
        world: W, ranks, >= 1. A single cell gets ``rows`` as they are.
        offset: place of the cycle that gets the first row left over, modulo A · W.

    Returns:
        One mapping per cell with the tasks of ``rows`` (possibly empty), in the step's order; cell
        ``micro · world + rank``.

    Raises:
        ValueError: a layout without cells, or not one cost for each row.
    """
    if accumulate < 1 or world < 1:
        raise ValueError(
            f"accumulate and world must be >= 1, got {accumulate} and {world}; they are "
            "micro-batches per step and ranks"
        )
    if (cells := accumulate * world) == 1:
        return [dict(rows)]
    place = _places(accumulate, world)
    load = [0.0] * cells
    parts: list[dict[str, Rows]] = [{} for _ in range(cells)]
    for task, indices in rows.items():
        cost = np.ones(len(indices)) if costs is None else np.asarray(costs[task], np.float64)
        if len(cost) != len(indices):
            raise ValueError(f"costs of task '{task}': {len(cost)} for {len(indices)} rows")
        each, over = divmod(len(indices), cells)
        room = (each + ((place - offset) % cells < over)).tolist()
        owner = _deal(cost, room, load)
        offset += over
        for cell, part in enumerate(parts):
            part[task] = indices[owner == cell]
    return parts


def _places(accumulate: int, world: int) -> NDArray[np.int64]:
    """(A · W,) place of each cell on the cycle by which left-over rows go round; cell by cell."""
    place = np.arange(accumulate * world)
    rank = (place + place // lcm(accumulate, world)) % world
    places = np.empty_like(place)
    places[place % accumulate * world + rank] = place
    return places


def _deal(cost: NDArray[np.float64], room: list[int], load: list[float]) -> NDArray[np.int64]:
    """Cell of each row; uses up ``room`` and adds to ``load``."""
    owner = np.empty(len(cost), np.int64)
    open_cells = [(load[cell], cell) for cell, places in enumerate(room) if places]
    heapify(open_cells)
    for row in np.argsort(-cost, kind="stable").tolist():
        owner[row] = cell = heappop(open_cells)[1]
        load[cell] += float(cost[row])
        room[cell] -= 1
        if room[cell]:
            heappush(open_cells, (load[cell], cell))
    return owner


class MicroBatchSampler(Sampler[list[tuple[str, int]]]):
    """Batch sampler of one process: lists of (task, row), one per micro-batch.

    Cell ``micro · world + rank`` of a step is micro-batch ``micro`` of ``rank``. The length is that
    of the *whole run*, iteration begins at the step set by `start_at`: with the remaining length
    Lightning repeats rows silently after a resume.

    Args:
        steps: the global rows of each step.
        accumulate: micro-batches per optimizer step, >= 1.
        rank: this process, in [0, world).
        world: number of processes, >= 1.
        max_steps: optimizer steps of the run; None: until the curriculum ends.
        costs: task -> cost of every row of its table, or a function (task, rows) -> costs.

    Raises:
        ValueError: a number is out of range, or a step has too few rows to give each cell one.
    """

    def __init__(
        self,
        steps: StepSampler,
        accumulate: int = 1,
        rank: int = 0,
        world: int = 1,
        max_steps: int | None = None,
        costs: Costs | None = None,
    ) -> None:
        self.first_step = steps.curriculum.start_step
        longest = steps.curriculum.total_steps - self.first_step
        self.max_steps = longest if max_steps is None else max_steps
        if not 1 <= self.max_steps <= longest:
            raise ValueError(
                f"max_steps must be in [1, {longest}], the curriculum's steps from step "
                f"{self.first_step} on, got {max_steps}; lengthen the last phase"
            )
        if accumulate < 1 or not 0 <= rank < world:
            raise ValueError(
                f"need accumulate >= 1 and 0 <= rank < world, got accumulate={accumulate}, "
                f"rank={rank}, world={world}"
            )
        run = steps.quotas[self.first_step : self.first_step + self.max_steps]
        if (fewest := int(run.sum(axis=1).min())) < accumulate * world:
            raise ValueError(
                f"a step of {fewest} rows cannot fill accumulate={accumulate} × world={world} "
                "micro-batches; raise global_batch or batch_rows, or accumulate less"
            )
        self.steps, self.accumulate, self.rank, self.world = steps, accumulate, rank, world
        self.costs = costs
        self._start = 0

    def start_at(self, step: int) -> None:
        """Lets the next iteration begin at ``step``, counted from the beginning of the run."""
        if not 0 <= step <= self.max_steps:
            raise ValueError(f"step must be in [0, {self.max_steps}], got {step}")
        self._start = step

    def __len__(self) -> int:
        """Loader batches of the whole run, whatever the step iteration begins at."""
        return self.max_steps * self.accumulate

    def __iter__(self) -> Iterator[list[tuple[str, int]]]:
        """Yields the micro-batches of this rank from the current start on."""
        for step in range(self.first_step + self._start, self.first_step + self.max_steps):
            rows = self.steps.rows_of_step(step)
            cells = split_step(rows, self._costs(rows), self.accumulate, self.world, step)
            for cell in cells[self.rank :: self.world]:
                yield [(task, row) for task, part in cell.items() for row in part.tolist()]

    def _costs(self, rows: dict[str, Rows]) -> dict[str, NDArray[Any]] | None:
        if (costs := self.costs) is None:
            return None
        look_up = costs if callable(costs) else lambda task, part: costs[task][part]
        return {task: look_up(task, part) for task, part in rows.items()}


class RowBatches(Sampler[list[tuple[str, int]]]):
    """Batch sampler of an evaluation: lists of (task, row), made when they are asked for.

    Args:
        task: the task.
        rows: (N,) rows in the order in which they are taken.
        size: rows per batch, >= 1; the last batch may be smaller.
    """

    def __init__(self, task: str, rows: Rows, size: int) -> None:
        self.task, self.rows, self.size = task, rows, size

    def __len__(self) -> int:
        """Batches."""
        return -(-len(self.rows) // self.size)

    def __iter__(self) -> Iterator[list[tuple[str, int]]]:
        """Yields the batches."""
        for start in range(0, len(self.rows), self.size):
            yield [(self.task, row) for row in self.rows[start : start + self.size].tolist()]
