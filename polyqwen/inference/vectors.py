"""Vectors on disk: a Parquet file written and searched a block at a time."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from polyqwen.atomic_files import atomic_write

KEY = b"polyqwen"  # of the file's notes: what made the vectors
COLUMNS = ("text", "image", "vector")


class Entry(NamedTuple):
    """What was embedded."""

    text: str
    image: str | None


class Hit(NamedTuple):
    """An entry that a search found."""

    row: int
    cosine: float
    entry: Entry


def write_vectors(
    path: Path, blocks: Iterable[tuple[Sequence[Entry], NDArray[np.float32]]], made_by: Mapping
) -> int:
    """Writes entries and their unit vectors, whole or not at all; a block becomes a row group.

    Args:
        path: the file.
        blocks: entries with their vectors, (N, D).
        made_by: model, task and other notes.

    Returns:
        The number of rows.

    Raises:
        ValueError: there are none.
    """
    rows = 0
    with atomic_write(path) as temporary:
        writer: pq.ParquetWriter | None = None
        for entries, vectors in blocks:
            size = vectors.shape[1]
            table = pa.table(
                {
                    "text": pa.array([entry.text for entry in entries], pa.string()),
                    "image": pa.array([entry.image for entry in entries], pa.string()),
                    "vector": pa.FixedSizeListArray.from_arrays(
                        pa.array(vectors.astype(np.float32).reshape(-1)), size
                    ),
                }
            )
            if writer is None:
                notes = {KEY: json.dumps(dict(made_by), ensure_ascii=False).encode()}
                writer = pq.ParquetWriter(temporary, table.schema.with_metadata(notes))
            writer.write_table(table.replace_schema_metadata(writer.schema.metadata))
            rows += len(entries)
        if writer is None:
            raise ValueError("there is nothing to embed")
        writer.close()
    return rows


def nearest(
    blocks: Iterable[NDArray[np.float32]], queries: int, count: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Numbers and cosines of the nearest documents, nearest first, (B, ≤ count) each.

    Args:
        blocks: (B, M) cosines of the queries with M documents, which follow those of the block
            before; documents are numbered through.
        queries: B.
        count: documents at most, >= 1; of equal cosines those that came first.
    """
    best = np.zeros((queries, 0), np.float32)
    numbers, start = np.zeros((queries, 0), np.int64), 0
    for cosines in blocks:
        own = np.broadcast_to(np.arange(start, start + cosines.shape[1]), cosines.shape)
        best, numbers = np.hstack([best, cosines]), np.hstack([numbers, own])
        order = np.argsort(-best, axis=1, kind="stable")[:, :count]
        best = np.take_along_axis(best, order, axis=1)
        numbers = np.take_along_axis(numbers, order, axis=1)
        start += cosines.shape[1]
    return numbers, best


class VectorFile:
    """A file of `write_vectors`.

    Args:
        path: the file.

    Raises:
        ValueError: it is missing, or no such file.
    """

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise ValueError(f"there is no index {path}; python -m polyqwen embed … -o {path}")
        try:
            self.file = pq.ParquetFile(path)
        except (pa.ArrowException, OSError) as error:
            raise ValueError(f"{path} is not a readable Parquet file: {error}") from error
        notes = (self.file.schema_arrow.metadata or {}).get(KEY)
        if notes is None or set(COLUMNS) - set(self.file.schema_arrow.names):
            raise ValueError(f"{path} was not made by python -m polyqwen embed")
        self.made_by: dict[str, Any] = json.loads(notes)

    def __len__(self) -> int:
        return int(self.file.metadata.num_rows)

    def blocks(self) -> Iterator[NDArray[np.float32]]:
        """The vectors, (N, D) of each row group."""
        for group in range(self.file.num_row_groups):
            column = self.file.read_row_group(group, ["vector"]).column("vector").combine_chunks()
            yield np.asarray(column.flatten()).reshape(len(column), -1)

    def search(self, query: NDArray[np.float32], count: int) -> list[Hit]:
        """The entries of the highest cosines, best first; exact, one block in memory at a time.

        Args:
            query: (D,), unit norm.
            count: entries at most, >= 1.

        Raises:
            ValueError: the query is of another length than the vectors.
        """
        rows, best = nearest(self._cosines(query), 1, count)
        entries = self._entries(rows[0])
        pairs = zip(rows[0].tolist(), best[0].tolist(), strict=True)
        return [Hit(row, cosine, entries[row]) for row, cosine in pairs]

    def _cosines(self, query: NDArray[np.float32]) -> Iterator[NDArray[np.float32]]:
        for block in self.blocks():
            if block.shape[1] != len(query):
                raise ValueError(
                    f"the index has vectors of {block.shape[1]} numbers, the query of {len(query)}"
                )
            yield (block @ query)[None]

    def _entries(self, rows: NDArray[np.int64]) -> dict[int, Entry]:
        found, start = {}, 0
        for group in range(self.file.num_row_groups):
            size = self.file.metadata.row_group(group).num_rows
            inside = [int(row) for row in rows if start <= row < start + size]
            if inside:
                table = self.file.read_row_group(group, ["text", "image"])
                for row in inside:
                    record = table.slice(row - start, 1).to_pylist()[0]
                    found[row] = Entry(record["text"], record["image"])
            start += size
        return found
