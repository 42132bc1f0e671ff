"""Parquet files, read in record batches: memory does not grow with the file."""

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from polyqwen.data.readers.base import (
    Numbered,
    existing,
    file_fingerprint,
    records_of,
    regular,
)
from polyqwen.data.types import one_line


class ParquetReader:
    """Rows of a ``.parquet`` file, or of all such files in a folder, in the order of their names.

    Args:
        path: the file or folder.
        batch_rows: rows decoded at a time, > 0.

    Raises:
        ValueError: nothing is there; while reading, for a file that is damaged or cut short.
    """

    def __init__(self, path: Path, batch_rows: int = 1024) -> None:
        path = existing(Path(path))
        self.paths = sorted(path.glob("*.parquet")) if path.is_dir() else [path]
        if not self.paths:
            raise ValueError(f"{path} holds no .parquet files")
        for file in self.paths:
            regular(file)
        self.batch_rows = batch_rows

    def __iter__(self) -> Iterator[Numbered]:
        for path in self.paths:
            number = 0
            for batch in self._batches(path):
                yield from records_of(batch, str(path), number)
                number += batch.num_rows

    def _batches(self, path: Path) -> Iterator[pa.RecordBatch]:
        try:
            with pq.ParquetFile(path) as file:
                yield from file.iter_batches(self.batch_rows)
        except (pa.ArrowException, OSError) as error:
            raise ValueError(f"{path} is not a readable Parquet file: {one_line(error)}") from error

    def __str__(self) -> str:
        return ", ".join(map(str, self.paths[:3]))

    def fingerprint(self) -> str:
        """See `Reader.fingerprint`."""
        return file_fingerprint(self.paths)
