"""A small prepared table, repeated to any size with other content keys."""

from pathlib import Path

import numpy as np
import pyarrow as pa

BLOCK = 65_536  # rows per record batch, as `polyqwen.data.tables.prepare` writes them


def grow(path: Path, rows: int) -> None:
    """Overwrites a prepared table by ``rows`` rows like its own; what lay beside it is removed.

    Args:
        path: Arrow file of a prepared table.
        rows: >= 1.
    """
    with pa.OSFile(str(path), "rb") as file, pa.ipc.open_stream(file) as reader:
        small = reader.read_all().replace_schema_metadata(None)
    block_rows = min(BLOCK, rows)
    tiled = pa.concat_tables([small] * -(-block_rows // len(small))).slice(0, block_rows)
    block = tiled.combine_chunks().to_batches()[0]
    temporary = path.with_suffix(".growing")
    with (
        pa.OSFile(str(temporary), "wb") as file,
        pa.ipc.new_stream(file, block.schema) as writer,
    ):
        for number, start in enumerate(range(0, rows, block_rows)):
            writer.write_batch(_other_keys(block.slice(0, rows - start), number))
    for kept in path.parent.glob(f"{path.stem}[.-]*"):
        if kept not in (path, temporary):
            kept.unlink()
    temporary.replace(path)


def _other_keys(block: pa.RecordBatch, number: int) -> pa.RecordBatch:
    """Every row's content keys made its own, evenly spread hashes."""
    columns = dict(zip(block.schema.names, block.columns, strict=True))
    rows = np.arange(len(block), dtype=np.uint64) + np.uint64(number * BLOCK)
    for side, offset in (("query", 0), ("document", 1)):
        fields = columns[side].flatten()
        place = columns[side].type.get_field_index("key")
        keys = (np.uint64(2) * rows + np.uint64(offset)) * np.uint64(0x9E3779B97F4A7C15)
        fields[place] = pa.array(keys.view(np.int64))
        columns[side] = pa.StructArray.from_arrays(fields, fields=list(columns[side].type))
    return pa.RecordBatch.from_arrays(list(columns.values()), schema=block.schema)
