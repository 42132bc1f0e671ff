"""What every reader offers, and the choice of a reader by a file's ending."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

Record = dict[str, Any]


class Reader(Protocol):
    """Rows of one split as plain dictionaries, and a name of their content for caches."""

    def __iter__(self) -> Iterator[tuple[str, Record]]:
        """Yields (where the row stands, for messages; the row)."""
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
