"""Some rows of a prepared table as a table of their own, kept beside it."""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset

from polyqwen.atomic_files import atomic_write
from polyqwen.data.tables.cache import file_of, kept_json


def label_counts(table: Dataset) -> list[tuple[dict[str, str], int]]:
    """The distinct labellings of a table and their rows, in the order of their first rows.

    The table is read once in its life, batch by batch.
    """
    return [(json.loads(text), rows) for text, rows in _counts(table)]


def _counts(table: Dataset) -> list[tuple[str, int]]:
    return kept_json(table, "labels", lambda: list(_count(table).items()))


def _count(table: Dataset) -> Counter[str]:
    counts: Counter[str] = Counter()
    for batch in table.data.table.select(["labels"]).to_batches():
        for entry in batch.column("labels").value_counts().to_pylist():
            counts[entry["values"]] += entry["counts"]
    return counts


def subset(table: Dataset, wanted: Callable[[Mapping[str, str]], bool]) -> Dataset:
    """The rows whose labels are ``wanted``, memory-mapped as the whole table is.

    An index over the table would not do: costs and contents are read from its columns directly.

    Args:
        table: read from one Arrow file.
        wanted: label → class, to whether rows with these labels are taken.
    """
    kinds = [text for text, _ in _counts(table)]
    chosen = [text for text in kinds if wanted(json.loads(text))]
    if len(chosen) == len(kinds):
        return table
    whole = file_of(table)
    assert whole is not None
    digest = hashlib.blake2b("\n".join(chosen).encode(), digest_size=8).hexdigest()
    path = whole.with_name(f"{whole.stem}-{digest}.arrow")
    if not path.exists():
        with atomic_write(path) as temporary:
            _write(temporary, table, chosen)
    return Dataset.from_file(str(path))


def _write(path: Path, table: Dataset, chosen: Sequence[str]) -> None:
    """Batch by batch, so that memory does not grow with the table."""
    arrow: pa.Table = table.data.table
    schema = arrow.schema.remove_metadata()
    values = pa.array(chosen, pa.string())
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, schema) as writer:
        for batch in arrow.to_batches():
            kept = batch.filter(pc.is_in(batch.column("labels"), value_set=values))
            if len(kept):
                writer.write_batch(kept.replace_schema_metadata(None))
