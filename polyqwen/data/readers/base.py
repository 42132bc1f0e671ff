"""What every reader offers, and what they have in common."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa

from polyqwen.data.types import RowError, one_line

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


def records_of(batch: pa.RecordBatch, where: str, start: int) -> Iterator[Numbered]:
    """The rows of an Arrow batch, which is looked through first: a wrong offset ends a process.

    Args:
        batch: the rows.
        where: the file, for messages.
        start: number of the batch's first row in it.
    """
    try:
        batch.validate(full=True)
        records: list[Record] | None = batch.to_pylist()
    except (pa.ArrowException, ValueError, OverflowError):
        records = None
    for i in range(batch.num_rows):
        place = f"{where}, row {start + i}"
        yield place, _one(batch.slice(i, 1), place) if records is None else records[i]


def _one(row: pa.RecordBatch, where: str) -> Record | RowError:
    try:
        row.validate(full=True)
        return dict(row.to_pylist()[0])
    except (pa.ArrowException, ValueError, OverflowError) as error:
        return RowError(where, "damaged", f"damaged: {one_line(error)}")
