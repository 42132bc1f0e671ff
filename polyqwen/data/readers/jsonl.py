"""JSON lines: one object a line, UTF-8."""

import json
from collections.abc import Iterator
from pathlib import Path

from polyqwen.data.readers.base import Record, existing, file_fingerprint


class JsonlReader:
    """Rows of a ``.jsonl`` file; blank lines are passed over.

    Args:
        path: the file.

    Raises:
        ValueError: for a missing file; while reading, for a line that is not a JSON object.
    """

    def __init__(self, path: Path) -> None:
        self.path = existing(Path(path))

    def __iter__(self) -> Iterator[tuple[str, Record]]:
        with self.path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if not line.strip():
                    continue
                where = f"{self.path}, line {number}"
                try:
                    record = json.loads(line.decode("utf-8-sig" if number == 1 else "utf-8"))
                except UnicodeDecodeError as error:
                    raise ValueError(f"{where} is not UTF-8: {error}") from error
                except json.JSONDecodeError as error:
                    raise ValueError(f"{where} is not JSON: {error}") from error
                if not isinstance(record, dict):
                    raise ValueError(f"{where} is not a JSON object but {type(record).__name__}")
                yield where, record

    def __str__(self) -> str:
        return str(self.path)

    def fingerprint(self) -> str:
        """See `Reader.fingerprint`."""
        return file_fingerprint([self.path])
