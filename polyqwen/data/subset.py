"""Some rows of a prepared table as a table of their own, kept beside it."""

import hashlib
import json
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
from datasets import Dataset
from numpy.typing import NDArray


def unique_labels(table: Dataset) -> tuple[list[dict[str, str]], NDArray[np.int64]]:
    """The distinct labellings of a table, and which of them each row has: (rows,)."""
    column = table.data.column("labels").combine_chunks().dictionary_encode()
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    kinds = [json.loads(text) for text in column.dictionary.to_pylist()]
    return kinds, np.asarray(column.indices, dtype=np.int64)


def subset(table: Dataset, mask: NDArray[np.bool_]) -> Dataset:
    """The rows where ``mask`` is true, memory-mapped as the whole table is.

    An index over the table would not do: costs and contents are read from its columns directly.

    Args:
        table: read from one Arrow file.
        mask: (rows,).
    """
    if mask.all():
        return table
    whole = Path(table.cache_files[0]["filename"])
    digest = hashlib.blake2b(np.packbits(mask).tobytes(), digest_size=8).hexdigest()
    path = whole.with_name(f"{whole.stem}-{digest}.arrow")
    if not path.exists():
        temporary = path.with_suffix(f".{os.getpid()}.tmp")
        try:
            _write(temporary, table, mask)
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    return Dataset.from_file(str(path))


def _write(path: Path, table: Dataset, mask: NDArray[np.bool_]) -> None:
    """Batch by batch, so that memory does not grow with the table."""
    arrow: pa.Table = table.data.table
    schema = arrow.schema.remove_metadata()
    start = 0
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, schema) as writer:
        for batch in arrow.to_batches():
            kept = batch.filter(pa.array(mask[start : start + len(batch)]))
            start += len(batch)
            if len(kept):
                writer.write_batch(kept.replace_schema_metadata(None))
