"""Contents by their 64-bit names: which stand twice, and which on two sides of a split."""

from array import array
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from polyqwen.data.validation.counts import EXAMPLES


class Shared(NamedTuple):
    """Rows whose content is also elsewhere.

    Attributes:
        rows: how many.
        first: (row, other row with the same content), the first few.
    """

    rows: int
    first: list[tuple[int, int]]


class Keys:
    """Names of contents and the rows that they stand in: 12 bytes each."""

    def __init__(self) -> None:
        self._keys, self._rows = array("Q"), array("I")

    def add(self, key: int, row: int) -> None:
        """Remembers a content, named by 64 bits without a sign, of a row."""
        self._keys.append(key)
        self._rows.append(row)

    def __len__(self) -> int:
        return len(self._keys)

    @property
    def distinct(self) -> int:
        """How many different ones there are."""
        return len(np.unique(self._named()))

    def repeated(self) -> Shared:
        """Rows whose content stood in an earlier one."""
        keys, first = np.unique(self._named(), return_index=True)
        again = np.ones(len(self), bool)
        again[first] = False
        found = np.flatnonzero(again)
        earlier = first[np.searchsorted(keys, self._named()[found[:EXAMPLES]])]
        return self._shared(found, self, earlier)

    def also_in(self, other: "Keys") -> Shared:
        """Rows whose content stands in another split too."""
        keys, first = np.unique(other._named(), return_index=True)
        found = np.flatnonzero(np.isin(self._named(), keys))
        there = first[np.searchsorted(keys, self._named()[found[:EXAMPLES]])]
        return self._shared(found, other, there)

    def _shared(self, found: NDArray[np.int64], other: "Keys", there: NDArray[np.int64]) -> Shared:
        pairs = zip(found[:EXAMPLES].tolist(), there.tolist(), strict=True)
        return Shared(len(found), [(self._rows[i], other._rows[j]) for i, j in pairs])

    def _named(self) -> NDArray[np.uint64]:
        return np.frombuffer(self._keys, np.uint64) if self._keys else np.zeros(0, np.uint64)
