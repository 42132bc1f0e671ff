"""Tokenises a split once and keeps it as a memory-mapped Arrow file.

The file is named by everything it depends on, so an edited data set or another tokenizer makes a
new one. It is written under a temporary name and renamed: a killed preparation leaves nothing
behind that could be taken for a whole one. Rows stream through, so memory does not grow with them.
"""

import hashlib
import json
import logging
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
from datasets import Dataset

from polyqwen.atomic_files import atomic_write
from polyqwen.data.images.images import Pictures
from polyqwen.data.rows.bad_rows import BadRows, Sieve, refused, report
from polyqwen.data.rows.task import PICTURES, Task
from polyqwen.data.rows.types import Content, Example, PictureError, Reader, Record, RowError
from polyqwen.data.tables.labels import check_classes
from polyqwen.data.tokens import Tokens

log = logging.getLogger(__name__)
VERSION = 4  # raise when the columns or their meaning change
ROWS, CHARACTERS = 1000, 16 << 20  # tokenised at a time
# Rows and bytes of a record batch. Opening a table reads the header of each of its batches, so few
# large ones keep that short; preparing holds one of them.
BATCH_ROWS, BATCH_BYTES = 65_536, 64 << 20
PROGRESS = 30.0  # seconds between lines of a long preparation

CONTENT = pa.struct(
    [
        ("ids", pa.list_(pa.int32())),
        ("text", pa.string()),
        ("image", pa.string()),
        ("height", pa.int32()),
        ("width", pa.int32()),
        ("key", pa.int64()),
    ]
)
SCHEMA = pa.schema(
    [
        ("query", CONTENT),
        ("document", CONTENT),
        ("negatives", pa.list_(CONTENT)),
        ("score", pa.float32()),
        ("labels", pa.string()),  # JSON, label → class
        ("difficulty", pa.float32()),
        ("info", pa.string()),  # JSON: its keys differ from task to task
        ("cost", pa.int32()),
        ("teacher_query", pa.list_(pa.float32())),
        ("teacher_document", pa.list_(pa.float32())),
    ]
)


def prepare(
    reader: Reader,
    task: Task,
    tokens: Tokens,
    pictures: Pictures,
    cache: Path,
    bad: BadRows = BadRows(),  # noqa: B008  (immutable)
    classes: Mapping[str, Sequence[str]] = {},
) -> Dataset:
    """The split as an Arrow table on disk, made now or found in the cache.

    ``classes`` are those of the labels that the run learns; a row of another class is refused.

    Raises:
        ValueError: for a split without rows, a row that cannot be used, or too many of them.
    """
    skip = bad.policy == "skip"
    path = table_path(reader, task, tokens, pictures, cache, bad, classes)
    if not path.exists():
        log.info("preparing %s, once", reader)
        start = time.monotonic()
        with atomic_write(path) as temporary:
            found, sieve = read_examples(reader, task, pictures, classes), Sieve(pictures)
            groups = in_groups(sieve.good(found) if skip else refused(found))
            tables = (_table(group, task, tokens, pictures) for group in groups)
            rows = _write(temporary, tables, str(reader))
            if skip:  # before the table: one without its counts would pass as whole
                sieve.write(path.with_suffix(".json"))
        log.info("prepared %d rows in %.1f s: %s", rows, time.monotonic() - start, path)
    if skip:
        report(path.with_suffix(".json"), str(reader), bad)
    dataset = Dataset.from_file(str(path))
    if not len(dataset):
        raise ValueError(f"no rows in {reader}; every task needs some in train, dev and test")
    return dataset


def table_path(
    reader: Reader,
    task: Task,
    tokens: Tokens,
    pictures: Pictures,
    cache: Path,
    bad: BadRows = BadRows(),  # noqa: B008  (immutable)
    classes: Mapping[str, Sequence[str]] = {},
) -> Path:
    """Where `prepare` keeps the table of these arguments, whether it is there or not."""
    parts: tuple[object, ...] = (
        VERSION,
        reader.fingerprint(),
        tokens.fingerprint(),
        sorted(task.read_fields.items()),
        task.turn_names,
        task.info,
        task.visual_tokens,
        pictures.cell,
        pictures.min_visual_tokens,
        pictures.max_visual_tokens,
        *(["skip"] if bad.policy == "skip" else []),
        sorted((label, tuple(names)) for label, names in classes.items()),
    )
    name = hashlib.blake2b(repr(parts).encode(), digest_size=12).hexdigest()
    return cache / f"{name}.arrow"


def prepared_sample(
    reader: Reader,
    task: Task,
    tokens: Tokens,
    pictures: Pictures,
    classes: Mapping[str, Sequence[str]],
    most: int,
) -> Dataset:
    """The good ones of the first ``most`` rows, as `prepare` would have them, in memory."""
    first = islice(read_examples(reader, task, pictures, classes), most)
    good = [(where, found) for where, found in first if not isinstance(found, RowError)]
    return Dataset(_table(good, task, tokens, pictures))


def read_examples(
    reader: Reader, task: Task, pictures: Pictures, classes: Mapping[str, Sequence[str]]
) -> Iterator[tuple[str, Example | RowError]]:
    """The rows of a split; a bad one stands there as its error."""
    length: int | None = None
    for where, record in reader:
        if isinstance(record, RowError):
            yield where, record
            continue
        try:
            example = task.example(_unpacked(record, task, pictures, where), where)
            check_classes(example.labels or {}, classes, where)
            length = _common_length(example, length, where)
        except RowError as error:
            yield where, error
        else:
            yield where, example


def _unpacked(record: Record, task: Task, pictures: Pictures, where: str) -> Record:
    """The record with names in place of pictures."""
    columns = [task.fields[f] for f in PICTURES if task.fields.get(f) in record]
    try:
        return {**record, **{name: pictures.named(record[name]) for name in columns}}
    except PictureError as error:
        raise RowError(where, f"picture {error.kind}", str(error)) from error


def _common_length(example: Example, length: int | None, where: str) -> int | None:
    """The length of all vectors of a split; raises RowError for a row with another."""
    for vector in (example.teacher_query, example.teacher_document):
        if vector is not None and len(vector) != (length := length or len(vector)):
            what = f"a teacher's vector has {len(vector)} numbers, those before it {length}"
            raise RowError(where, "vector of another length", what)
    return length


def in_groups(examples: Iterable[tuple[str, Example]]) -> Iterator[list[tuple[str, Example]]]:
    """Groups of rows, smaller ones where texts are long."""
    rows, characters = [], 0
    for where, example in examples:
        rows.append((where, example))
        characters += sum(len(content.text) for content in _contents(example))
        if len(rows) >= ROWS or characters >= CHARACTERS:
            yield rows
            rows, characters = [], 0
    if rows:
        yield rows


def _contents(example: Example) -> list[Content]:
    return [c for c in (example.query, example.positive, *example.negatives) if c is not None]


def _write(path: Path, tables: Iterable[pa.Table], what: str) -> int:
    """Writes record batches of a good size, with a log line now and then; number of rows."""
    rows, held = 0, [SCHEMA.empty_table()]
    start = told = time.monotonic()
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, SCHEMA) as writer:

        def flush() -> None:
            writer.write_table(pa.concat_tables(held).combine_chunks())
            held[:] = [SCHEMA.empty_table()]

        for table in tables:
            held.append(table)
            rows += len(table)
            if sum(map(len, held)) >= BATCH_ROWS or sum(t.nbytes for t in held) >= BATCH_BYTES:
                flush()
            if (now := time.monotonic()) - told >= PROGRESS:
                told = now
                log.info("%s: %d rows prepared, %.0f a second", what, rows, rows / (now - start))
        flush()
    return rows


def _table(
    rows: list[tuple[str, Example]], task: Task, tokens: Tokens, pictures: Pictures
) -> pa.Table:
    """Prepared rows."""
    contents = [content for _, example in rows for content in _contents(example)]
    ids = dict(zip(contents, tokens.encode([c.text for c in contents]), strict=True))
    prepared = [_row(where, example, ids, task, pictures) for where, example in rows]
    return pa.Table.from_pylist(prepared, schema=SCHEMA)


def _row(
    where: str, example: Example, ids: dict[Content, list[int]], task: Task, pictures: Pictures
) -> dict[str, Any]:
    def column(content: Content) -> dict[str, Any]:
        height, width = _size(content, where, pictures)
        return {
            "ids": ids[content],
            "text": content.text,
            "image": content.image,
            "height": height,
            "width": width,
            "key": content.key,
        }

    assert example.positive is not None
    query, document = column(example.query), column(example.positive)
    negatives = [column(content) for content in example.negatives]
    sides = [query, *([] if example.positive == example.query else [document]), *negatives]
    cost = sum(_cost(side, task, pictures) for side in sides)
    return {
        "query": query,
        "document": document,
        "negatives": negatives,
        "score": example.score,
        "labels": json.dumps(example.labels or {}, ensure_ascii=False, sort_keys=True),
        "difficulty": example.difficulty,
        "info": json.dumps(example.info or {}, ensure_ascii=False),
        "cost": cost,
        "teacher_query": example.teacher_query,
        "teacher_document": example.teacher_document,
    }


def _size(content: Content, where: str, pictures: Pictures) -> tuple[int, int]:
    if content.image is None:
        return 0, 0
    try:
        return pictures.size(content.image)
    except PictureError as error:
        raise RowError(where, f"picture {error.kind}", str(error)) from error


def _cost(side: dict[str, Any], task: Task, pictures: Pictures) -> int:
    """Tokens of one side, a measure of its work."""
    if side["image"] is None:
        return len(side["ids"])
    size = (side["height"], side["width"])
    return len(side["ids"]) + pictures.visual_tokens(size, task.visual_tokens)
