"""Counts of a stream of rows; all but `Keys` keep their size however long it is."""

from array import array
from collections import Counter
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from polyqwen.data.rows.bad_rows import EXAMPLES

MOST = 1000  # different labels and classes; whatever comes after them is counted as one
BARS = "▁▂▃▄▅▆▇█"


class Lengths:
    """Lengths in tokens.

    Args:
        most: longer texts are cut there.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self._counts = np.zeros(1, np.int64)  # (longest + 1,)

    def add(self, lengths: list[int]) -> None:
        """Counts some."""
        more = np.bincount(lengths, minlength=len(self._counts))
        more[: len(self._counts)] += self._counts
        self._counts = more

    @property
    def cut(self) -> float:
        """Share of the texts that are cut."""
        return float(self._counts[self.most + 1 :].sum() / max(self._counts.sum(), 1))

    def quantile(self, share: float) -> int:
        """The length that this share of the texts does not exceed."""
        total = self._counts.cumsum()
        return int(np.searchsorted(total, share * total[-1])) if total[-1] else 0

    def report(self) -> dict[str, Any]:
        """Quantiles, and how many have up to 1, 2, 4, 8, … tokens."""
        edges = [2**i for i in range((len(self._counts) - 1).bit_length() + 1)]
        ends = [int(self._counts[: edge + 1].sum()) for edge in edges]
        steps = np.diff([0, *ends]).tolist()
        return {
            "median": self.quantile(0.5),
            "p95": self.quantile(0.95),
            "longest": len(self._counts) - 1,
            "cut_beyond": self.most,
            "cut_share": self.cut,
            "histogram": {str(edge): n for edge, n in zip(edges, steps, strict=True)},
        }


class Scores:
    """Scores in [0, 1], counted in tenths."""

    def __init__(self) -> None:
        self.tenths: NDArray[np.int64] = np.zeros(10, np.int64)
        self.least, self.most = np.inf, -np.inf

    def add(self, score: float) -> None:
        """Counts one."""
        self.tenths[min(int(score * 10), 9)] += 1
        self.least, self.most = min(self.least, score), max(self.most, score)

    def report(self) -> dict[str, Any] | None:
        """Least, most and counts; None without scores."""
        if not self.tenths.sum():
            return None
        return {"least": self.least, "most": self.most, "tenths": self.tenths.tolist()}

    def bars(self) -> str:
        """The counts as ten bars."""
        top = max(int(self.tenths.max()), 1)
        return "".join(BARS[int(n * (len(BARS) - 1) / top)] for n in self.tenths)


class Classes:
    """Rows of each class of each label."""

    def __init__(self) -> None:
        self.counts: Counter[tuple[str, str]] = Counter()

    def add(self, label: str, name: str) -> None:
        """Counts one."""
        key = (label, name)
        if key not in self.counts and len(self.counts) >= MOST:
            key = (label[:40], "…") if len(self.counts) < 2 * MOST else ("…", "…")
        self.counts[key] += 1

    def report(self) -> dict[str, dict[str, int]]:
        """Label -> class -> rows, most first."""
        table: dict[str, dict[str, int]] = {}
        for (label, name), count in self.counts.most_common():
            table.setdefault(label, {})[name] = count
        return table


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
        return self._shared(self, earlier=True)

    def also_in(self, other: "Keys") -> Shared:
        """Rows whose content stands in another split too."""
        return self._shared(other, earlier=False)

    def _shared(self, other: "Keys", earlier: bool) -> Shared:
        keys, first = np.unique(other._named(), return_index=True)
        found = np.flatnonzero(np.isin(self._named(), keys))
        there = first[np.searchsorted(keys, self._named()[found])]
        if earlier:
            again = there < found
            found, there = found[again], there[again]
        pairs = zip(found[:EXAMPLES].tolist(), there[:EXAMPLES].tolist(), strict=True)
        return Shared(len(found), [(self._rows[i], other._rows[j]) for i, j in pairs])

    def _named(self) -> NDArray[np.uint64]:
        return np.frombuffer(self._keys, np.uint64) if self._keys else np.zeros(0, np.uint64)
