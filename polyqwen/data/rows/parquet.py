"""Parquet files, read in record batches: memory does not grow with the file."""

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from polyqwen.data.rows.arrow_batches import records_of
from polyqwen.data.rows.reader import (
    Numbered,
    existing,
    file_fingerprint,
    regular,
)
from polyqwen.data.rows.types import one_line

ROWS, BYTES = 1024, 64 << 20  # decoded at a time, at most


class ParquetReader:
    """Rows of a ``.parquet`` file, or of all such files in a folder, in the order of their names.

    Args:
        path: the file or folder.

    Raises:
        ValueError: nothing is there; while reading, for a file that is damaged or cut short.
    """

    def __init__(self, path: Path) -> None:
        path = existing(Path(path))
        self.paths = sorted(path.glob("*.parquet")) if path.is_dir() else [path]
        if not self.paths:
            raise ValueError(f"{path} holds no .parquet files")
        for file in self.paths:
            regular(file)

    def __iter__(self) -> Iterator[Numbered]:
        for path in self.paths:
            number = 0
            for batch in self._batches(path):
                yield from records_of(batch, str(path), number)
                number += batch.num_rows

    def _batches(self, path: Path) -> Iterator[pa.RecordBatch]:
        try:
            layout = pq.read_metadata(path)
            # a dictionary stays one: its text of megabytes may stand in every row of a small file
            texts = _texts(layout)
            with pq.ParquetFile(path, metadata=layout, read_dictionary=texts) as file:
                yield from file.iter_batches(_rows(layout))
        except (pa.ArrowException, OSError) as error:
            raise ValueError(f"{path} is not a readable Parquet file: {one_line(error)}") from error

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
