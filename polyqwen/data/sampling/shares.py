"""How tasks share a step beyond the curriculum: by size, in turn, or by how they fare."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Table = NDArray[np.float64]


class Sampling(ABC):
    """Turns the curriculum's shares into those that a step is divided by.

    A pure function of the shares, the tasks' sizes, a seed for those that draw and, for those that
    learn, a table kept in the checkpoint; so rows still follow from the step number alone.
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


class RandomTask(Sampling):
    """One task per step, drawn with p_t = share_t; each step is a batch of one task.

    Step s goes to the task in whose part of [0, 1) the s-th number of a generator falls, so what is
    drawn follows from (seed, step), with any version of NumPy.

    Args:
        seed: of the draws, >= 0.
    """

    def __init__(self, seed: int = 0) -> None:
        if seed < 0:
            raise ValueError(f"data.sampling.seed must be >= 0, got {seed}")
        self.seed = seed

    def table(self, shares: Table, rows: NDArray[np.int64]) -> Table:
        """See `Sampling.table`."""
        drawn = (np.random.PCG64(self.seed).random_raw(len(shares)) >> np.uint64(11)) * 2.0**-53
        edges = np.cumsum(shares, axis=1)  # (S, T)
        last = edges[:, -1]
        at = np.minimum(drawn * last, np.nextafter(last, 0.0))  # (S,), below the last edge
        first_above = (at[:, None] < edges).argmax(axis=1)  # (S,)
        return np.eye(shares.shape[1])[first_above] * (shares > 0.0)

    def highest(self, shares: Table, rows: NDArray[np.int64]) -> Table:
        """The whole step, wherever a task has a share."""
        return (shares > 0.0).astype(np.float64)


def normalised(table: Table) -> Table:
    """Rows scaled to sum to 1."""
    total = table.sum(axis=1, keepdims=True)
    return table / np.where(total > 0.0, total, 1.0)


Signal = Literal["loss", "uncertainty"]


class AdaptiveSampling(Sampling):
    """p_t ∝ share_t · f_t,  f_t = clip((v_t / mean v)^power, bounds).

    v_t is measured over a window of steps: the mean loss in parts of its chance level ("loss";
    similar in aim to Sharma et al. 2018, arXiv 1702.06053), or the mean entropy of the predicted
    classes in parts of its largest value ("uncertainty"; tasks without classes keep f = 1). A task
    that was not measured keeps its factor.

    What window k shows is in force from window k + 2 on: batches of window k + 1 may have been
    fetched already. The table of factors is all there is to remember, equal on all ranks.

    Args:
        signal: what v_t is.
        window: optimizer steps, >= 1; more than loaders fetch ahead.
        power: >= 0; 0 changes nothing.
        bounds: of f_t, 0 < low <= 1 <= high.
    """

    def __init__(
        self,
        signal: Signal = "loss",
        window: int = 100,
        power: float = 1.0,
        bounds: tuple[float, float] = (0.5, 2.0),
    ) -> None:
        where = "data.sampling"
        if signal not in ("loss", "uncertainty"):
            raise ValueError(f"{where}.signal must be loss or uncertainty, got {signal!r}")
        if window < 1:
            raise ValueError(f"{where}.window must be at least 1, got {window}")
        if power < 0.0:
            raise ValueError(f"{where}.power must be >= 0, got {power}")
        if not 0.0 < bounds[0] <= 1.0 <= bounds[1]:
            raise ValueError(f"{where}.bounds must enclose 1 and be positive, got {bounds}")
        self.signal, self.window, self.power = signal, window, power
        self.bounds = (float(bounds[0]), float(bounds[1]))
        self.factors: dict[int, list[float]] = {}  # first window they are in force in → (T,)

    def table(self, shares: Table, rows: NDArray[np.int64]) -> Table:
        """See `Sampling.table`."""
        table = shares.copy()
        for first in sorted(self.factors):  # later ones overwrite the rest of the run
            start = first * self.window
            table[start:] = shares[start:] * np.array(self.factors[first])
        return normalised(table)

    def highest(self, shares: Table, rows: NDArray[np.int64]) -> Table:
        """A task at the upper bound and all others at the lower one."""
        low, high = self.bounds
        others = shares.sum(axis=1, keepdims=True) - shares
        return shares * high / np.maximum(shares * high + others * low, 1e-300)

    def decide(self, step: int, values: Sequence[float]) -> list[float]:
        """New factors from a window that ended.

        Args:
            step: optimizer steps done, a multiple of ``window``.
            values: v_t of each task, NaN where unknown.

        Returns:
            The factors, in force from step ``step + window`` on.
        """
        if step % self.window:
            raise ValueError(f"step {step} does not end a window of {self.window}")
        before = self.factors[max(self.factors)] if self.factors else [1.0] * len(values)
        measured = np.asarray(values, dtype=np.float64)
        known = np.isfinite(measured)
        factors = np.array(before)
        if known.any() and measured[known].mean() > 0.0:
            ratio = np.maximum(measured[known], 0.0) / measured[known].mean()
            factors[known] = np.clip(ratio**self.power, *self.bounds)
        self.factors[step // self.window + 1] = factors.tolist()
        return factors.tolist()

    def state_dict(self) -> dict[str, Any]:
        """The table of factors."""
        return {"factors": {str(first): list(f) for first, f in self.factors.items()}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """See `Sampling.load_state_dict`."""
        self.factors = {int(first): list(f) for first, f in state.get("factors", {}).items()}
