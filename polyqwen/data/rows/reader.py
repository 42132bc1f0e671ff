"""What every reader offers, and what they have in common."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

from polyqwen.data.rows.types import RowError

MAX_ROW = 4 << 20  # bytes of a row's texts. Parsed, a line of brackets takes forty times its size

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
