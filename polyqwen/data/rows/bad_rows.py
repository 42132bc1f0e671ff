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
from typing import NamedTuple

from polyqwen.atomic_files import write_text
from polyqwen.data.images.images import Pictures
from polyqwen.data.rows.types import Example, PictureError, RowError

log = logging.getLogger(__name__)
POLICIES = ("error", "skip")
REMEMBERED = 65_536  # pictures whose fault is not looked for again

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


def refused(rows: Rows) -> Iterator[tuple[str, Example]]:
    """The rows, up to the first bad one; pictures are not looked at.

    Raises:
        RowError: that row's.
    """
    for where, example in rows:
        if isinstance(example, RowError):
            raise example
        yield where, example


class Sieve:
    """Lets good rows pass, in their order, and counts the others.

    Every picture is decoded whole: a truncated file has a good header.

    Args:
        rows: of a split.
        pictures: opens them.
    """

    def __init__(self, rows: Rows, pictures: Pictures) -> None:
        self._rows, self._pictures = rows, pictures
        self.rows = 0
        self.kinds: Counter[str] = Counter()
        self.first = ""

    def __iter__(self) -> Iterator[tuple[str, Example]]:
        fault = lru_cache(REMEMBERED)(self._fault)  # a picture serves many questions
        for where, example in self._rows:
            self.rows += 1
            if isinstance(example, RowError):
                self._count(example.kind, str(example))
                continue
            found = next((f for f in map(fault, pictures_of(example)) if f), None)
            if found is None:
                yield where, example
            else:
                self._count(found[0], f"{where}: {found[1]}")

    def _count(self, kind: str, text: str) -> None:
        self.kinds[kind] += 1
        self.first = self.first or text

    def _fault(self, name: str) -> tuple[str, str] | None:
        try:
            self._pictures.open(name)
        except PictureError as error:
            return f"picture {error.kind}", str(error)
        return None

    def write(self, path: Path) -> None:
        """Keeps the counts beside the table, for runs that find it prepared."""
        counts = {"rows": self.rows, "kinds": dict(self.kinds), "first": self.first}
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
