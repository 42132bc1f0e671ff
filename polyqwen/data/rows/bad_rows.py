"""Rows that cannot be used: refused, or left out, counted and capped.

A row is bad for what stands in it or for a picture that cannot be shown. What is left out is
decided once, when a split is prepared, and kept with the prepared table: every run that finds the
table, and one that goes on, has the same rows.
"""

import json
import logging
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from polyqwen.atomic_files import write_text
from polyqwen.data.images.images import Pictures
from polyqwen.data.rows.types import Example, PictureError, RowError

log = logging.getLogger(__name__)
POLICIES = ("error", "skip")
EXAMPLES = 3  # of a kind of fault
REMEMBERED = 65_536  # pictures whose fault is not looked for again

T = TypeVar("T")
Rows = Iterable[tuple[str, Example | RowError]]  # where, and the row or why it is none


class BadRows(NamedTuple):
    """What to do with rows that cannot be used.

    Attributes:
        policy: "error" refuses the first of them, "skip" leaves them out.
        max_share: largest part of a split's rows that "skip" may leave out, in [0, 1].
    """

    policy: str = "error"
    max_share: float = 0.01

    def check(self) -> "BadRows":
        """Itself; ValueError if a value is out of range."""
        if self.policy not in POLICIES:
            raise ValueError(f"data.bad_rows must be error or skip, got {self.policy!r}")
        if not 0.0 <= self.max_share <= 1.0:
            raise ValueError(f"data.max_bad_share must lie in [0, 1], got {self.max_share}")
        return self


def refused(rows: Iterable[tuple[str, T | RowError]]) -> Iterator[tuple[str, T]]:
    """The rows, up to the first bad one; pictures are not looked at.

    Raises:
        RowError: that row's.
    """
    for where, row in rows:
        if isinstance(row, RowError):
            raise row
        yield where, row


class Faults:
    """Bad rows by kind, the first few of each with their places."""

    def __init__(self) -> None:
        self.kinds: Counter[str] = Counter()
        self.first: dict[str, list[dict[str, str | None]]] = {}

    def add(self, error: RowError) -> None:
        """Counts one."""
        self.kinds[error.kind] += 1
        first = self.first.setdefault(error.kind, [])
        if len(first) < EXAMPLES:
            first.append({"where": error.where, "field": error.field, "what": error.what})

    def report(self) -> dict[str, Any]:
        """Kind -> count and first places."""
        return {
            kind: {"count": count, "first": self.first[kind]}
            for kind, count in self.kinds.most_common()
        }


class Sieve:
    """Lets good rows pass, in their order, and counts the others.

    Every picture is decoded whole: a truncated file has a good header.

    Args:
        pictures: opens them.

    Attributes:
        rows: how many there were, bad ones too.
        faults: the bad ones.
    """

    def __init__(self, pictures: Pictures) -> None:
        self._pictures = pictures
        self.rows, self.faults = 0, Faults()

    def good(self, rows: Rows) -> Iterator[tuple[str, Example]]:
        """Those of a split's rows that can be used."""
        fault = lru_cache(REMEMBERED)(self._fault)  # a picture serves many questions
        for where, example in rows:
            self.rows += 1
            if isinstance(example, RowError):
                self.faults.add(example)
                continue
            found = next((f for f in map(fault, pictures_of(example)) if f), None)
            if found is None:
                yield where, example
            else:
                self.faults.add(RowError(where, *found))

    def _fault(self, name: str) -> tuple[str, str] | None:
        try:
            self._pictures.open(name)
        except PictureError as error:
            return f"picture {error.kind}", str(error)
        return None

    def write(self, path: Path) -> None:
        """Keeps the counts beside the table, for runs that find it prepared."""
        first = [f"{kind[0]['where']}: {kind[0]['what']}" for kind in self.faults.first.values()]
        counts = {
            "rows": self.rows,
            "kinds": dict(self.faults.kinds),
            "first": first[0] if first else "",
        }
        write_text(path, json.dumps(counts, ensure_ascii=False))


def pictures_of(example: Example) -> list[str]:
    """Names of the pictures on all sides of a row."""
    sides = (example.query, example.positive, *example.negatives)
    return [side.image for side in sides if side is not None and side.image]


def report(path: Path, split: str, bad: BadRows) -> None:
    """Warns of the rows left out of a prepared split, once each time it is opened.

    Args:
        path: counts, as `Sieve.write` left them.
        split: its files, for the message.
        bad: the cap.

    Raises:
        ValueError: more than the cap were left out.
    """
    counts = json.loads(path.read_text(encoding="utf-8"))
    skipped = sum(counts["kinds"].values())
    if not skipped:
        return
    kinds = ", ".join(f"{number} {kind}" for kind, number in sorted(counts["kinds"].items()))
    what = f"{split}: {skipped} of {counts['rows']} rows are bad ({kinds})"
    share = skipped / counts["rows"]
    first = f"first {counts['first']}"
    if share > bad.max_share:
        raise ValueError(
            f"{what}: {share:.1%}, more than data.max_bad_share={bad.max_share:g}; {first}"
        )
    log.warning("%s and are left out; %s", what, first)
