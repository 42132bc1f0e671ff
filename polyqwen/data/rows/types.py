"""The vocabulary of the data path: rows before any tensor, their readers, and what a bad one is.

A reader turns one record of a file into an `Example`; everything after it speaks of queries and
documents only, whatever the task.
"""

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol

MAX_ROW = 4 << 20  # bytes of a row's texts. Parsed, a line of brackets takes forty times its size


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
        teacher_query: a teacher's vector of the query, of unit norm.
        teacher_document: the same of the document; both of one teacher, so equally long.
    """

    query: Content
    positive: Content | None = None
    negatives: tuple[Content, ...] = ()
    score: float | None = None
    labels: Mapping[str, str] | None = None
    difficulty: float | None = None
    info: Mapping[str, str] | None = None
    teacher_query: tuple[float, ...] | None = None
    teacher_document: tuple[float, ...] | None = None


class RowError(ValueError):
    """A row that cannot be used; the rows beside it can.

    Args:
        where: file and line, or row.
        kind: what it counts as, the same few words for all rows with the same fault.
        what: the whole of it, in one line.
        field: the column that it lies in, if it is one.
    """

    def __init__(self, where: str, kind: str, what: str, field: str | None = None) -> None:
        super().__init__(f"{where}: {what}")
        self.where, self.kind, self.what, self.field = where, kind, what, field


class PictureError(ValueError):
    """A picture that cannot be shown.

    Args:
        what: the picture and what is wrong with it, in one line.
        kind: ``missing``, ``damaged``, ``too large`` or ``outside`` the data root.
    """

    def __init__(self, what: str, kind: str) -> None:
        super().__init__(what)
        self.kind = kind


def one_line(error: object, most: int = 300) -> str:
    """A message without line breaks and what else a terminal could not print."""
    text = "".join(c if c.isprintable() else " " for c in str(error))
    return " ".join(text.split())[:most]


Record = dict[str, Any]
Numbered = tuple[str, Record | RowError]  # where the row stands, and the row, or why there is none


class Reader(Protocol):
    """Rows of one split as plain dictionaries, and a name of their content for caches."""

    def __iter__(self) -> Iterator[Numbered]:
        """Yields (where the row stands, for messages; the row).

        A row that cannot be read stands there as its `RowError`, and the rows after it follow.

        Raises:
            ValueError: the file cannot be read, or not to its end.
        """
        ...

    def count(self) -> int:
        """Number of rows, bad ones too, without reading what is in them.

        Raises:
            ValueError: the file cannot be read.
        """
        ...

    def fingerprint(self) -> str:
        """Changes whenever the rows could have changed."""
        ...


def file_fingerprint(paths: list[Path]) -> str:
    """Names, sizes and modification times: cheap, and changed by any edit."""
    stats = [(str(path.resolve()), path.stat()) for path in paths]
    return repr([(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats])


def existing(path: Path) -> Path:
    """The path, or a ValueError that says what is missing."""
    if not path.exists():
        raise ValueError(f"there is no {path}; check data.root and the task's name")
    return path


def regular(path: Path) -> Path:
    """The path of a file; a ValueError for a pipe or a device, which would be read for ever."""
    if not existing(path).is_file():
        raise ValueError(f"{path} is not a file")
    return path
