"""Some rows of one task, batch by batch."""

from collections.abc import Iterator

from torch.utils.data import Sampler

from polyqwen.data.sampling.permutation import Rows


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
