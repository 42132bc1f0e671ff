"""Which rows a step trains on: pure functions of (seed, step).

`quota_table` divides a step's rows among tasks, `StepSampler` turns quotas into row indices;
`polyqwen.data.sampling.batches` deals them to micro-batches and ranks. Resuming is exact and
instant, and equal global batches see the same rows in every layout.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from polyqwen.data.sampling.curriculum import Curriculum
from polyqwen.data.sampling.permutation import PassOrder, Rows
from polyqwen.data.sampling.shares import Sampling, Shares

_BITS = 32
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)  # golden ratio's fraction · 2^64


def quota_table(
    shares: NDArray[np.float64], batch: int | None, fixed: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Divides every step's rows among tasks: systematic sampling along the golden ratio.

    ``quota_t(s) = floor(b_t + u_s) - floor(b_{t-1} + u_s)``, ``b_t = batch · cumulative share``,
    ``u_s = frac(s · golden ratio)``. Rows sum to ``batch`` at each step, each quota is the floor or
    ceiling of ``batch · share``. In fixed point with 32 fractional bits, an integral
    ``batch · share`` is met exactly at each step. Otherwise the running sum departs from its target
    by the discrepancy of the golden ratio, which grows with log S: at worst about 3.5 rows in 1000
    steps, 4 in 4000, 5 in 100 000.

    Args:
        shares: (S, T) from step 0 on, >= 0, scaled to sum 1 among the tasks without fixed rows.
        batch: global rows per step; None only if all tasks with a share have fixed rows.
        fixed: (T,) rows a task takes at each step at which its share is above 0; 0: by share.

    Returns:
        Quotas (S, T), and the most rows a step can take from each task (T,).

    Raises:
        ValueError: nothing is left for the tasks without fixed rows.
    """
    taken = np.where(shares > 0.0, fixed, 0)  # (S, T)
    cumulative = np.cumsum(np.where(fixed > 0, 0.0, shares), axis=1)
    total = cumulative[:, -1:]
    left = np.where(total > 0.0, (batch or 0) - taken.sum(axis=1, keepdims=True), 0)  # (S, 1)
    if (left[total > 0.0] <= 0).any():
        raise ValueError(
            f"global_batch={batch} leaves no rows for tasks without batch_rows (fixed: "
            f"{fixed.tolist()}); raise global_batch or fix the rows of all tasks"
        )
    targets = cumulative / np.where(total > 0.0, total, 1.0) * left
    bounds = np.rint(targets * 2.0**_BITS).astype(np.int64)
    widest = np.diff(bounds, axis=1, prepend=0).max(axis=0, initial=0)
    golden = np.arange(len(shares), dtype=np.uint64) * _GOLDEN >> np.uint64(64 - _BITS)
    edges = (bounds + golden.astype(np.int64)[:, None]) >> _BITS
    ceiling = -(-widest >> _BITS) + taken.max(axis=0, initial=0)
    return taken + np.diff(edges, axis=1, prepend=0), ceiling


class StepSampler:
    """The global rows of every optimizer step.

    A task's stream (`PassOrder`) goes on over phase switches, and a late start skips its beginning.

    Args:
        rows: task -> number of rows, for exactly the curriculum's tasks.
        curriculum: gives ``tasks``, ``total_steps`` and ``share_table(start, stop)``.
        global_batch: rows per optimizer step over all ranks and micro-batches, > 0.
        seed: seed of all orders.
        batch_rows: task -> global rows at each step at which its share is above 0, > 0. The other
            tasks divide what is left; if there are none, the step has just these rows.
        sampling: changes the curriculum's shares; None leaves them.
        first: task -> order of its first pass, for tasks that do not start shuffled.

    Raises:
        ValueError: tasks do not match, a number is out of range, or a task is too small.
    """

    def __init__(
        self,
        rows: Mapping[str, int],
        curriculum: Curriculum,
        global_batch: int | None,
        seed: int,
        batch_rows: Mapping[str, int] | None = None,
        sampling: Sampling | None = None,
        first: Mapping[str, Rows] | None = None,
    ) -> None:
        self.tasks, self.curriculum = curriculum.tasks, curriculum
        batch_rows = batch_rows or {}
        if set(rows) != set(self.tasks):
            raise ValueError(f"rows are given for {sorted(rows)}, curriculum has {self.tasks}")
        if unknown := set(batch_rows) - set(self.tasks):
            raise ValueError(f"batch_rows names unknown tasks {sorted(unknown)}: {self.tasks}")
        if min([1 if global_batch is None else global_batch, *batch_rows.values()]) < 1:
            raise ValueError(
                f"global_batch and batch_rows must be >= 1, got {global_batch} and "
                f"{dict(batch_rows)}; leave a task out of batch_rows to draw it by share"
            )
        self._fixed = np.array([batch_rows.get(task, 0) for task in self.tasks])
        self._sampling, self._batch = sampling or Shares(), global_batch
        self._rows = np.array([rows[task] for task in self.tasks])
        self._shares = curriculum.share_table(0, curriculum.total_steps)
        self.refresh()
        first = first or {}
        self._orders = {
            task: PassOrder(rows[task], seed, task, guard, first.get(task))
            for task, guard in zip(self.tasks, self._guards(), strict=True)
            if guard > 0
        }

    def refresh(self) -> None:
        """Reads the sampling's table anew; steps whose shares it left alone keep their rows."""
        shares = self._sampling.table(self._shares, self._rows)
        self.quotas, self._widest = quota_table(shares, self._batch, self._fixed)  # (S, T), (T,)
        self._ends = np.cumsum(self.quotas, axis=0)

    def _guards(self) -> list[int]:
        """The most rows a step can ever take from each task, also under shares yet to come."""
        free = np.where(self._fixed > 0, 0.0, self._shares)  # (S, T)
        taken = np.where(self._shares > 0.0, self._fixed, 0).sum(axis=1, keepdims=True)  # (S, 1)
        highest = self._sampling.highest(free, self._rows) * ((self._batch or 0) - taken)
        most = np.ceil(highest - 1e-9).max(axis=0).astype(np.int64)  # (T,)
        return np.maximum(self._widest, most).tolist()

    def rows_of_step(self, step: int) -> dict[str, Rows]:
        """Row indices of absolute ``step`` by task; tasks without rows are left out."""
        if not 0 <= step < len(self.quotas):
            raise ValueError(f"step must be in [0, {len(self.quotas)}), got {step}")
        rows = {}
        for task, end, quota in zip(self.tasks, self._ends[step], self.quotas[step], strict=True):
            if quota > 0:
                rows[task] = self._orders[task].rows_at(np.arange(end - quota, end))
        return rows

    def distinct_rows(self, task: str, start: int, stop: int) -> int:
        """How many different rows of a task the steps ``start … stop - 1`` take.

        Args:
            task: its name.
            start: first absolute step.
            stop: step after the last, > ``start``.
        """
        number = self.tasks.index(task)
        first = int(self._ends[start - 1, number]) if start else 0
        last = int(self._ends[stop - 1, number])
        rows = int(self._rows[number])
        whole = last // rows - -(-first // rows)  # passes that lie between the two
        if first == last or whole >= 1 or first // rows == (last - 1) // rows:
            return min(last - first, rows)
        return len(np.unique(self._orders[task].rows_at(np.arange(first, last))))
