"""Rows whose pictures cannot be shown: refused, or left out, counted and capped."""

import json
import logging
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from polyqwen.data.pictures import PictureError, Pictures
from polyqwen.data.types import Example

log = logging.getLogger(__name__)
POLICIES = ("error", "skip")
REMEMBERED = 65_536  # pictures whose fault is not looked for again


class BadPictures(NamedTuple):
    """What to do with rows whose pictures are missing, damaged or outside the data root.

    Attributes:
        policy: "error" refuses the first of them, "skip" leaves them out.
        max_share: largest part of a split's rows that "skip" may leave out, in [0, 1].
    """

    policy: str = "error"
    max_share: float = 0.01

    def check(self) -> "BadPictures":
        """Itself; ValueError if a value is out of range."""
        if self.policy not in POLICIES:
            raise ValueError(f"data.bad_pictures must be error or skip, got {self.policy!r}")
        if not 0.0 <= self.max_share <= 1.0:
            raise ValueError(f"data.max_bad_share must lie in [0, 1], got {self.max_share}")
        return self


class Sieve:
    """Lets rows with good pictures pass and counts the others.

    Every picture is decoded whole: a truncated file has a good header. Their order is kept.

    Args:
        examples: (where, row) of a split.
        pictures: opens them.
    """

    def __init__(self, examples: Iterable[tuple[str, Example]], pictures: Pictures) -> None:
        self._examples, self._pictures = examples, pictures
        self.rows = self.skipped = 0
        self.first = ""

    def __iter__(self) -> Iterator[tuple[str, Example]]:
        fault = lru_cache(REMEMBERED)(self._fault)  # a picture serves many questions
        for where, example in self._examples:
            self.rows += 1
            contents = (example.query, example.positive, *example.negatives)
            faults = [fault(c.image) for c in contents if c is not None and c.image]
            found = next((f for f in faults if f), None)
            if found is None:
                yield where, example
                continue
            self.skipped += 1
            self.first = self.first or f"{where}: {found}"

    def _fault(self, name: str) -> str | None:
        try:
            self._pictures.open(name)
        except PictureError as error:
            return str(error)
        return None

    def write(self, path: Path) -> None:
        """Keeps the counts beside the table, for runs that find it prepared."""
        counts = {"rows": self.rows, "skipped": self.skipped, "first": self.first}
        path.write_text(json.dumps(counts, ensure_ascii=False), encoding="utf-8")


def report(path: Path, split: str, bad: BadPictures) -> None:
    """Warns of the rows left out of a prepared split, once each time it is opened.

    Args:
        path: counts, as `Sieve.write` left them.
        split: its files, for the message.
        bad: the cap.

    Raises:
        ValueError: more than the cap were left out.
    """
    counts = json.loads(path.read_text(encoding="utf-8"))
    if not counts["skipped"]:
        return
    share = counts["skipped"] / counts["rows"]
    what = f"{split}: {counts['skipped']} of {counts['rows']} rows have bad pictures"
    first = f"first {counts['first']}"
    if share > bad.max_share:
        raise ValueError(
            f"{what} ({share:.1%}), more than data.max_bad_share={bad.max_share:g}; {first}"
        )
    log.warning("%s and are left out; %s", what, first)
