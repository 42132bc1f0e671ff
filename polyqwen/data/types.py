"""The vocabulary of the data path: what a row is, before any tensor.

A reader turns one record of a file into an `Example`; everything after it speaks of queries and
documents only, whatever the task.
"""

import hashlib
from collections.abc import Mapping
from typing import NamedTuple


class Content(NamedTuple):
    """One side of a pair: a text, a picture, or both (the picture comes first)."""

    text: str = ""
    image: str | None = None  # path relative to the data root

    @property
    def key(self) -> int:
        """A 64-bit name: equal for the same text and the same picture."""
        digest = hashlib.blake2b(
            f"{self.image or ''}\0{self.text}".encode(), digest_size=8
        ).digest()
        return int.from_bytes(digest, "big", signed=True)


class Example(NamedTuple):
    """One row of a task.

    Attributes:
        query: what is asked or searched with.
        positive: the document that belongs to it.
        negatives: documents known not to belong to it (mined or given).
        score: similarity of the two sides in [0, 1]; None for tasks whose pairs simply match.
        labels: class names by label; a missing label is a missing key.
        difficulty: for an order from easy to hard; None where the task has none.
        info: free columns carried along for reports (``lang``, ``source``).
    """

    query: Content
    positive: Content | None = None
    negatives: tuple[Content, ...] = ()
    score: float | None = None
    labels: Mapping[str, str] | None = None
    difficulty: float | None = None
    info: Mapping[str, str] | None = None
