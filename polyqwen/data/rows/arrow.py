"""Readers of Arrow, Parquet and hub data, in record batches: memory does not grow with the file.

All are read as plain Arrow: `datasets` would decode its own column types, and so open whatever path
or address a row of pictures names.
"""

import json
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from polyqwen.data.rows.arrow_batches import records_of
from polyqwen.data.rows.types import Numbered, existing, file_fingerprint, one_line, regular

ROWS, BYTES = 1024, 64 << 20  # decoded at a time, at most
FILE = b"ARROW1"  # begins Arrow's file format; the stream format has no such mark


class BatchReader(ABC):
    """Rows out of record batches.

    Raises:
        ValueError: nothing is there; while reading, for a file that is damaged or cut short.
    """

    @abstractmethod
    def _batches(self) -> Iterator[tuple[str, pa.RecordBatch]]:
        """Batches, and what they are part of: rows are numbered within it."""

    def __iter__(self) -> Iterator[Numbered]:
        numbers: Counter[str] = Counter()
        for where, batch in self._batches():
            yield from records_of(batch, where, numbers[where])
            numbers[where] += batch.num_rows

    def count(self) -> int:
        """See `Reader.count`."""
        return sum(batch.num_rows for _, batch in self._batches())


class ArrowReader(BatchReader):
    """Rows of an ``.arrow`` file (of either format), or of a folder of ``Dataset.save_to_disk``.

    Args:
        path: the file or folder.
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

    def _batches(self) -> Iterator[tuple[str, pa.RecordBatch]]:
        for path in self._paths():
            try:
                with pa.memory_map(str(path)) as file:
                    head = file.read(len(FILE))
                    file.seek(0)
                    opened = pa.ipc.open_file(file) if head == FILE else pa.ipc.open_stream(file)
                    for batch in _stored(opened):
                        for start in range(0, batch.num_rows, ROWS):
                            yield str(self.path), batch.slice(start, ROWS)
            except (pa.ArrowException, OSError, ValueError) as error:
                reason = one_line(error) or type(error).__name__
                raise ValueError(f"{path} is not a readable Arrow file: {reason}") from error

    def __str__(self) -> str:
        return str(self.path)

    def fingerprint(self) -> str:
        """See `Reader.fingerprint`."""
        paths = sorted(self.path.rglob("*.arrow")) if self.path.is_dir() else [self.path]
        return file_fingerprint(paths)


def _stored(opened: Any) -> Iterator[pa.RecordBatch]:
    """The record batches of a file or of a stream, as they were written."""
    if isinstance(opened, pa.RecordBatchFileReader):
        return (opened.get_batch(i) for i in range(opened.num_record_batches))
    return iter(opened)


class ParquetReader(BatchReader):
    """Rows of a ``.parquet`` file, or of all such files in a folder, in the order of their names.

    Args:
        path: the file or folder.
    """

    def __init__(self, path: Path) -> None:
        path = existing(Path(path))
        self.paths = sorted(path.glob("*.parquet")) if path.is_dir() else [path]
        if not self.paths:
            raise ValueError(f"{path} holds no .parquet files")
        for file in self.paths:
            regular(file)

    def _batches(self) -> Iterator[tuple[str, pa.RecordBatch]]:
        for path in self.paths:
            try:
                layout = pq.read_metadata(path)
                # a dictionary stays one: its text of megabytes may stand in every row of a small
                # file
                texts = _texts(layout)
                with pq.ParquetFile(path, metadata=layout, read_dictionary=texts) as file:
                    for batch in file.iter_batches(_rows(layout)):
                        yield str(path), batch
            except (pa.ArrowException, OSError) as error:
                reason = one_line(error)
                raise ValueError(f"{path} is not a readable Parquet file: {reason}") from error

    def count(self) -> int:
        """See `Reader.count`: what the files' own heads say."""
        try:
            return sum(pq.read_metadata(path).num_rows for path in self.paths)
        except (pa.ArrowException, OSError) as error:
            reason = one_line(error)
            raise ValueError(f"{self} is not a readable Parquet file: {reason}") from error

    def __str__(self) -> str:
        return ", ".join(map(str, self.paths[:3]))

    def fingerprint(self) -> str:
        """See `Reader.fingerprint`."""
        return file_fingerprint(self.paths)


def _texts(layout: pq.FileMetaData) -> list[str]:
    """Paths of the columns that hold texts or bytes."""
    columns = [layout.schema.column(i) for i in range(len(layout.schema))]
    return [column.path for column in columns if column.physical_type == "BYTE_ARRAY"]


def _rows(layout: pq.FileMetaData) -> int:
    """Rows to decode at a time: fewer where they hold pictures."""
    groups = [layout.row_group(i) for i in range(layout.num_row_groups)]
    mean = sum(group.total_byte_size for group in groups) / max(layout.num_rows, 1)
    return min(max(int(BYTES / max(mean, 1)), 16), ROWS)


class HubReader(BatchReader):
    """Rows of one split of a hub data set (downloaded once, then memory-mapped).

    Args:
        name: ``owner/name`` on the hub.
        split: the split's name there, such as ``validation``.
        config: the data set's configuration, if it has several.
        revision: commit to pin; None takes the newest.
    """

    def __init__(
        self, name: str, split: str, *, config: str | None = None, revision: str | None = None
    ) -> None:
        from datasets import Dataset, load_dataset  # heavy, and not needed for files

        self.name = name
        dataset = load_dataset(name, config, split=split, revision=revision)
        assert isinstance(dataset, Dataset), f"{name} did not load as a table: {type(dataset)}"
        self.dataset = dataset
        self.split = split

    def _batches(self) -> Iterator[tuple[str, pa.RecordBatch]]:
        for table in self.dataset.with_format("arrow").iter(ROWS):
            for batch in table.to_batches():
                yield str(self), batch

    def count(self) -> int:
        """See `Reader.count`."""
        return len(self.dataset)

    def __str__(self) -> str:
        return f"{self.name} ({self.split})"

    def fingerprint(self) -> str:
        """See `Reader.fingerprint`."""
        return f"{self.name}:{self.split}:{self.dataset._fingerprint}"
