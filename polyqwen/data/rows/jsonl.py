"""JSON lines: one object a line, UTF-8."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from polyqwen.data.rows.types import (
    MAX_ROW,
    Numbered,
    Record,
    RowError,
    file_fingerprint,
    one_line,
    regular,
)

MAGIC = {
    b"\x1f\x8b": "gzip-compressed; unpack it",
    b"PK\x03\x04": "a zip archive; unpack it",
    b"BZh": "bzip2-compressed; unpack it",
    b"\xfd7zXZ": "xz-compressed; unpack it",
    b"\x28\xb5\x2f\xfd": "zstd-compressed; unpack it",
    b"PAR1": "a Parquet file; name it .parquet",
    b"\xff\xfe": "UTF-16; save it as UTF-8",
    b"\xfe\xff": "UTF-16; save it as UTF-8",
}
BOM = b"\xef\xbb\xbf"


class JsonlReader:
    """Rows of a ``.jsonl`` file; blank lines are passed over, and so is a byte order mark.

    A line that is no JSON object, has a key twice, is nested deeper than Python follows or longer
    than `MAX_ROW` is a bad row.

    Args:
        path: the file.

    Raises:
        ValueError: for a missing file; while reading, for a file of another format.
    """

    def __init__(self, path: Path) -> None:
        self.path = regular(Path(path))

    def __iter__(self) -> Iterator[Numbered]:
        with self.path.open("rb") as file:
            _check_format(file, self.path)
            for number, line in enumerate(_lines(file), start=1):
                where = f"{self.path}, line {number}"
                if len(line) > MAX_ROW:
                    what = f"longer than {MAX_ROW:,} bytes"
                    yield where, RowError(where, "line too long", what)
                elif line.strip():
                    yield where, _record(line.removeprefix(BOM) if number == 1 else line, where)

    def count(self) -> int:
        """See `Reader.count`: lines that are not blank."""
        with self.path.open("rb") as file:
            _check_format(file, self.path)
            return sum(1 for line in _lines(file) if line.strip())

    def __str__(self) -> str:
        return str(self.path)

    def fingerprint(self) -> str:
        """See `Reader.fingerprint`."""
        return file_fingerprint([self.path])


def _check_format(file: BinaryIO, path: Path) -> None:
    head = file.read(8)
    file.seek(0)
    for magic, what in MAGIC.items():
        if head.startswith(magic):
            raise ValueError(f"{path} is not JSON lines but {what}")


def _lines(file: BinaryIO) -> Iterator[bytes]:
    """Lines, those that are too long cut off behind their first `MAX_ROW` bytes."""
    while line := file.readline(MAX_ROW + 1):
        if len(line) > MAX_ROW and not line.endswith(b"\n"):
            _skip_line(file)
        yield line


def _skip_line(file: BinaryIO) -> None:
    """Goes to the beginning of the next line."""
    while block := file.read(1 << 20):
        if (end := block.find(b"\n")) >= 0:
            file.seek(end + 1 - len(block), os.SEEK_CUR)
            return


def _record(line: bytes, where: str) -> Record | RowError:
    try:
        record = json.loads(line.decode("utf-8"), object_pairs_hook=_object)
    except UnicodeDecodeError as error:
        return RowError(where, "not UTF-8", f"not UTF-8: {one_line(error)}")
    except RecursionError:
        return RowError(where, "nested too deep", "nested too deep")
    except _DoubleKeyError as error:
        return RowError(where, "double key", f"the key {error.key!r:.80} stands twice", error.key)
    except ValueError as error:  # not JSON, or a number of thousands of digits
        return RowError(where, "not JSON", f"not JSON: {one_line(error)}")
    if not isinstance(record, dict):
        return RowError(where, "not an object", f"not a JSON object but {type(record).__name__}")
    return record


class _DoubleKeyError(Exception):
    """An object in which it is not clear which value counts."""

    def __init__(self, key: str) -> None:
        super().__init__(key)
        self.key = key


def _object(pairs: list[tuple[str, Any]]) -> Record:
    record = dict(pairs)
    if len(record) < len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise _DoubleKeyError(key)
            seen.add(key)
    return record
