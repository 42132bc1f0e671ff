"""The endless stream of a task's rows: one keyed permutation after the other, without memory.

A Feistel network is a bijection of ``range(4**h)`` whatever its round function; walking along its
cycle until the value falls below ``n`` makes it a bijection of ``range(n)`` (Black & Rogaway 2002,
"Ciphers with arbitrary finite domains"). So position -> row costs the same for 10 rows and for 10
million, and any position can be asked for without the ones before it.
"""

from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.int64]
_ROUNDS = 8  # 4 suffice for large domains (Luby & Rackoff 1988); more mix tiny ones


def round_keys(seed: int, name: str, number: int) -> NDArray[np.uint64]:
    """Keys of the permutation for (seed, name, number); equal on every machine and Python."""
    digest = blake2b(f"{seed}|{number}|{name}".encode(), digest_size=8 * _ROUNDS).digest()
    return np.frombuffer(digest, dtype="<u8").astype(np.uint64)


def permute(positions: Rows, size: int, keys: NDArray[np.uint64]) -> Rows:
    """Image of ``positions`` under a keyed permutation of ``range(size)``.

    Args:
        positions: any shape, values in [0, size).
        size: number of rows, in [1, 2**62].
        keys: (rounds,), see `round_keys`.
    """
    half = np.uint64(max(1, ((size - 1).bit_length() + 1) // 2))
    values = _feistel(positions.astype(np.uint64).ravel(), half, keys)
    outside = np.flatnonzero(values >= size)
    while outside.size:  # the domain is below 4·size: a few turns
        walked = _feistel(values[outside], half, keys)
        values[outside] = walked
        outside = outside[walked >= size]
    return values.astype(np.int64).reshape(positions.shape)


def _feistel(
    values: NDArray[np.uint64], half: np.uint64, keys: NDArray[np.uint64]
) -> NDArray[np.uint64]:
    mask = (np.uint64(1) << half) - np.uint64(1)
    left, right = values >> half, values & mask
    for key in keys:
        left, right = right, left ^ (_mix(right ^ key) & mask)
    return (left << half) | right


def _mix(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Finaliser of SplitMix64 (Steele et al. 2014): every input bit reaches every output bit."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


class PassOrder:
    """Maps positions 0, 1, 2, … of a task's infinite stream to row indices.

    Pass ``position // rows`` visits every row once, in its own order. A step that straddles two
    passes must not hold a row twice (the row would be its own false negative), so any window of
    ``guard`` positions is free of repeats:

    - ``rows >= 3 · guard``: among the first ``2 · guard`` positions of a pass, rows of the last
      ``guard`` positions of the pass before come after the others. There are at most ``guard`` of
      them, hence the first ``guard`` rows of a pass are none of these, and the end of a pass is
      never touched.
    - fewer rows: all passes share one order, so any ``rows`` positions in a row are all different.

    Args:
        rows: rows of the task, >= 1.
        seed: seed of the run.
        task: name of the task; tasks have unrelated orders.
        guard: most rows one step takes from this task, in [1, rows].
        first: (rows,) order of the first pass, a permutation; None shuffles it too.

    Raises:
        ValueError: there are no rows, or a step wants more different rows than there are.
    """

    def __init__(
        self, rows: int, seed: int, task: str, guard: int, first: Rows | None = None
    ) -> None:
        if rows < 1:
            raise ValueError(f"rows of task '{task}' must be >= 1, got {rows}; drop the task")
        if not 1 <= guard <= rows:
            raise ValueError(
                f"a step takes {guard} rows of task '{task}', which has {rows}: rows would repeat "
                "inside a step; lower the global batch or the task's share, or give more rows"
            )
        self.rows, self.seed, self.task, self.guard = rows, seed, task, guard
        self.first = first
        self._heads: dict[int, Rows] = {}

    def rows_at(self, positions: Rows) -> Rows:
        """Row indices at absolute ``positions`` (>= 0, any shape)."""
        numbers, places = np.divmod(positions, self.rows)
        result = np.empty_like(positions)
        for number in np.unique(numbers):
            here = numbers == number
            result[here] = self._rows_of_pass(int(number), places[here])
        return result

    def _rows_of_pass(self, number: int, places: Rows) -> Rows:
        if self.rows < 3 * self.guard:
            return self._plain(0, places)
        rows = self._plain(number, places)
        early = places < 2 * self.guard
        if number > 0 and early.any():
            rows[early] = self._head(number)[places[early]]
        return rows

    def _plain(self, number: int, places: Rows) -> Rows:
        """Rows of a pass as if there were none before it."""
        if number == 0 and self.first is not None:
            return np.asarray(self.first[places])
        return permute(places, self.rows, round_keys(self.seed, self.task, number))

    def _head(self, number: int) -> Rows:
        """First ``2 · guard`` rows of a pass, rows of the end of the pass before put last."""
        if number not in self._heads:
            tail = self._plain(number - 1, np.arange(self.rows - self.guard, self.rows))
            head = self._plain(number, np.arange(2 * self.guard))
            recent = np.isin(head, tail)
            self._heads = {number: np.concatenate([head[~recent], head[recent]])}
        return self._heads[number]


def easy_first(difficulty: NDArray[np.float64], seed: int, task: str) -> Rows:
    """Rows by rising difficulty, equal ones in random order: (rows,)."""
    size = len(difficulty)
    shuffled = permute(np.arange(size), size, round_keys(seed, f"{task}/easy_first", 0))
    return shuffled[np.argsort(difficulty[shuffled], kind="stable")]
