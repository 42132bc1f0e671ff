"""From Arrow batches to rows, with nothing believed of them and a bound on memory."""

from collections.abc import Iterator, Sequence
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from polyqwen.data.images.files import MAX_BYTES
from polyqwen.data.rows.types import MAX_ROW, Numbered, Record, RowError, one_line

PART = 64 << 20  # bytes of texts and pictures turned to Python at a time

Sizes = NDArray[np.int64]  # (rows,) bytes


def records_of(batch: pa.RecordBatch, where: str, start: int) -> Iterator[Numbered]:
    """The rows of an Arrow batch, which is looked through first: a wrong offset ends a process.

    Rows are measured before they are made: a dictionary says once what may stand in each of them.

    Args:
        batch: the rows; texts and bytes may be dictionaries.
        where: the file, for messages.
        start: number of the batch's first row in it.
    """
    try:
        batch.validate(full=True)
        texts, whole = _sizes(batch, pictures=False), _sizes(batch, pictures=True)
    except (pa.ArrowException, ValueError, OverflowError):
        for i in range(batch.num_rows):
            place = f"{where}, row {start + i}"
            yield place, _one(batch.slice(i, 1), place)
        return
    long = (texts > MAX_ROW) | (whole > MAX_ROW + MAX_BYTES)
    for first, last in _parts(np.where(long, 0, whole)):
        places = [f"{where}, row {start + i}" for i in range(first, last)]
        keep = np.flatnonzero(~long[first:last])
        part = batch.slice(first, last - first).take(pa.array(keep))
        good = iter(_records(part, [places[i] for i in keep]))
        for place, left_out in zip(places, long[first:last], strict=True):
            if left_out:
                what = f"longer than {MAX_ROW:,} bytes"
                yield place, RowError(place, "line too long", what)
            else:
                yield place, next(good)


def _parts(sizes: Sizes) -> Iterator[tuple[int, int]]:
    """Runs of rows of at most `PART` bytes, or of one row."""
    first, ends = 0, np.cumsum(sizes)
    while first < len(sizes):
        before = ends[first - 1] if first else 0
        last = max(int(np.searchsorted(ends, before + PART, side="right")), first + 1)
        yield first, last
        first = last


def _records(part: pa.RecordBatch, places: Sequence[str]) -> list[Record | RowError]:
    """Rows as Python, each for itself if one of them cannot be turned into it."""
    plain = pa.RecordBatch.from_arrays([_plain(c) for c in part.columns], part.schema.names)
    try:
        return cast(list[Record | RowError], plain.to_pylist())
    except (ValueError, OverflowError):
        return [_one(plain.slice(i, 1), place) for i, place in enumerate(places)]


def _one(row: pa.RecordBatch, where: str) -> Record | RowError:
    try:
        row.validate(full=True)
        return dict(row.to_pylist()[0])
    except (pa.ArrowException, ValueError, OverflowError) as error:
        return RowError(where, "damaged", f"damaged: {one_line(error)}")


def _plain(array: Any) -> Any:
    """The same values without dictionaries, which turn to Python ten times as slowly."""
    kind = array.type
    if pa.types.is_dictionary(kind):
        return array.dictionary_decode()
    if pa.types.is_struct(kind) and kind.num_fields:
        parts = [_plain(part) for part in array.flatten()]
        names = [kind.field(i).name for i in range(kind.num_fields)]
        return pa.StructArray.from_arrays(parts, names, mask=array.is_null())
    if pa.types.is_list(kind):
        counts = np.append(0, np.cumsum(_counts(array))).astype(np.int32)
        return pa.ListArray.from_arrays(counts, _plain(array.flatten()), mask=array.is_null())
    return array


def _sizes(values: Any, pictures: bool) -> Sizes:
    """Bytes of the texts, and of the pictures too, in each value of an array or row of a batch."""
    if isinstance(values, pa.RecordBatch):
        return _sum([_sizes(column, pictures) for column in values.columns], len(values))
    kind = values.type
    if pa.types.is_dictionary(kind):
        own = _sizes(values.dictionary, pictures)
        indices = _numbers(values.indices)
        return np.where(_numbers(values.is_valid()) > 0, own[indices] if len(own) else 0, 0)
    if pa.types.is_struct(kind):
        return _sum([_sizes(part, pictures) for part in values.flatten()], len(values))
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        before = np.append(0, np.cumsum(_sizes(values.flatten(), pictures)))
        ends = np.cumsum(_counts(values))
        return before[ends] - before[ends - _counts(values)]
    is_text = pa.types.is_string(kind) or pa.types.is_large_string(kind)
    is_bytes = pa.types.is_binary(kind) or pa.types.is_large_binary(kind)
    if is_text or (is_bytes and pictures):
        return _numbers(pc.binary_length(values))
    return np.zeros(len(values), np.int64)


def _counts(array: Any) -> Sizes:
    """Values in each list."""
    return _numbers(pc.list_value_length(array))


def _sum(parts: list[Sizes], rows: int) -> Sizes:
    return np.sum(parts, axis=0) if parts else np.zeros(rows, np.int64)


def _numbers(array: Any) -> Sizes:
    """With 0 for null."""
    return np.asarray(pc.fill_null(array.cast(pa.int64()), 0).to_numpy(zero_copy_only=False))
