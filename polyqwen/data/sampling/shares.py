"""How tasks share a step beyond the curriculum: by size, in turn, or by how they fare."""

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
from numpy.typing import NDArray

Table = NDArray[np.float64]


class Sampling(ABC):
    """Turns the curriculum's shares into those that a step is divided by.

    A pure function of the shares, the tasks' sizes and, for those that learn, a table kept in the
    checkpoint; so rows still follow from the step number alone.
    """

    @abstractmethod
    def table(self, shares: Table, rows: NDArray[np.int64]) -> Table:
        """Shares by step, each row summing to 1; 0 where the curriculum says 0.

        Args:
            shares: (S, T) of the curriculum, from step 0 on.
            rows: (T,) rows of each task.
        """

    def highest(self, shares: Table, rows: NDArray[np.int64]) -> Table:
        """The highest share that each task may ever get at each step, (S, T)."""
        return self.table(shares, rows)

    def state_dict(self) -> dict[str, Any]:
        """What was learnt so far, in plain Python."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:  # noqa: B027  (most learn nothing)
        """Goes on from `state_dict`."""


class Shares(Sampling):
    """The curriculum's shares as they are."""

    def table(self, shares: Table, rows: NDArray[np.int64]) -> Table:
        """See `Sampling.table`."""
        return shares


class BySize(Sampling):
    """p_t ∝ share_t · n_t^τ, with n_t rows: τ = 1 draws all rows equally often, 0 leaves shares.

    Temperature sampling as in multilingual models (Aharoni et al. 2019, arXiv 1907.05019, with
    τ = 1/T).

    Args:
        tau: >= 0.
    """

    def __init__(self, tau: float = 1.0) -> None:
        if not 0.0 <= tau < float("inf"):
            raise ValueError(f"data.sampling.tau must be a finite number >= 0, got {tau}")
        self.tau = tau

    def table(self, shares: Table, rows: NDArray[np.int64]) -> Table:
        """See `Sampling.table`."""
        return normalised(shares * (rows / rows.max()) ** self.tau)


class RoundRobin(Sampling):
    """One task per step, the active ones in turn; each step is a batch of one task.

    Tasks active at step s are those with a share then; the step goes to number s mod their count.
    """

    def table(self, shares: Table, rows: NDArray[np.int64]) -> Table:
        """See `Sampling.table`."""
        active = shares > 0.0  # (S, T)
        turn = np.arange(len(shares)) % np.maximum(active.sum(axis=1), 1)  # (S,)
        place = np.cumsum(active, axis=1) - 1  # (S, T), number among the active ones
        return (active & (place == turn[:, None])).astype(np.float64)


def normalised(table: Table) -> Table:
    """Rows scaled to sum to 1."""
    total = table.sum(axis=1, keepdims=True)
    return table / np.where(total > 0.0, total, 1.0)
