"""Arrow files and folders written by `datasets`, memory-mapped.

They are read as plain Arrow: `datasets` would decode its own column types, and so open whatever
path or address a row of pictures names.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from polyqwen.data.rows.arrow_batches import records_of
from polyqwen.data.rows.reader import (
    Numbered,
    existing,
    file_fingerprint,
    regular,
)
from polyqwen.data.rows.types import one_line

BATCH = 1024  # rows turned to Python at a time
FILE = b"ARROW1"  # begins the file format; the stream format has no such mark


class ArrowReader:
    """Rows of an ``.arrow`` file (of either format), or of a folder of ``Dataset.save_to_disk``.

    Args:
        path: the file or folder.

    Raises:
        ValueError: nothing is there; while reading, for a file that is damaged or cut short.
    """

    def __init__(self, path: Path) -> None:
        self.path = existing(Path(path))

    def _paths(self) -> list[Path]:
        """The files, in the order of the folder's own list."""
        if not self.path.is_dir():
            return [regular(self.path)]
        if (self.path / "dataset_dict.json").exists():
            raise ValueError(f"{self.path} holds several splits; point at one of its folders")
        try:
            state = json.loads((self.path / "state.json").read_text(encoding="utf-8"))
            names = [str(entry["filename"]) for entry in state["_data_files"]]
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise ValueError(
                f"{self.path} is no folder of Dataset.save_to_disk: its state.json is missing or "
                "damaged"
            ) from error
        if any(Path(name).name != name for name in names):
            raise ValueError(f"{self.path / 'state.json'} names files of other folders")
        return [regular(self.path / name) for name in names]

    def __iter__(self) -> Iterator[Numbered]:
        number = 0
        for path in self._paths():
            for batch in _batches(path):
                yield from records_of(batch, str(self.path), number)
                number += batch.num_rows

    def __str__(self) -> str:
        return str(self.path)

    def fingerprint(self) -> str:
        """See `Reader.fingerprint`."""
        paths = sorted(self.path.rglob("*.arrow")) if self.path.is_dir() else [self.path]
        return file_fingerprint(paths)


def _batches(path: Path) -> Iterator[pa.RecordBatch]:
    try:
        with pa.memory_map(str(path)) as file:
            head = file.read(len(FILE))
            file.seek(0)
            opened = pa.ipc.open_file(file) if head == FILE else pa.ipc.open_stream(file)
            for batch in _stored(opened):
                for start in range(0, batch.num_rows, BATCH):
                    yield batch.slice(start, BATCH)
    except (pa.ArrowException, OSError, ValueError) as error:
        reason = one_line(error) or type(error).__name__
        raise ValueError(f"{path} is not a readable Arrow file: {reason}") from error


def _stored(opened: Any) -> Iterator[pa.RecordBatch]:
    """The record batches of a file or of a stream, as they were written."""
    if isinstance(opened, pa.RecordBatchFileReader):
        return (opened.get_batch(i) for i in range(opened.num_record_batches))
    return iter(opened)
