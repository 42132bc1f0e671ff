"""Rows of broken files and of strangers: one clear line each, or left out; nothing else happens."""

import gzip
import json
import logging
import os
import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polyqwen.data.images.images import Pictures
from polyqwen.data.rows.bad_rows import BadRows
from polyqwen.data.rows.sources import FolderSource
from polyqwen.data.rows.task import Task
from polyqwen.data.rows.types import MAX_ROW, RowError
from polyqwen.data.tables.prepare import prepare, read_examples
from tests.conftest import REAL
from tests.data.hostile import LINES, contained, cut, mutated, one_clear_line, spoilt_rows
from tests.data.test_tokens import SHARED, tokens

PAIRS = Task({"query_text": "text_a", "document_text": "text_b", "score": "score"}, prefix="<x>")
TASKS = {
    "text_pair": PAIRS,
    "ocr": Task({"query_image": "image", "document_text": "text"}, prefix="<ocr>"),
    "vqa_multi": Task(
        {"query_image": "image", "turns": "turns", "negatives": "negatives"}, prefix="<x>"
    ),
    "text_labels": Task(
        {"query_text": "text", "labels": "labels"},
        prefix="<x>",
        label="sentiment",
        classes=("negative", "neutral", "positive"),
    ),
}
NONE = Pictures(Path())
CLASSES = {"sentiment": ("negative", "neutral", "positive")}


@pytest.fixture
def root(folder: Path) -> Path:
    """Real rows where there are some, else generated ones."""
    return REAL if REAL.is_dir() else folder


def good_rows(root: Path, task: str, count: int) -> list[dict[str, Any]]:
    lines = (root / task / "train.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines[:count]]


def read(tmp_path: Path, data: bytes, task: Task = PAIRS, ending: str = ".jsonl") -> list[Any]:
    """The rows of a file, or their errors."""
    path = tmp_path / "t" / f"train{ending}"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data)
    reader = FolderSource(tmp_path).reader("t", "train")
    classes = CLASSES if task.label else {}
    return [example for _, example in read_examples(reader, task, NONE, classes)]


@pytest.mark.parametrize("name", TASKS)
def test_spoilt_rows_are_refused_in_one_line_or_left_out(
    root: Path, name: str, tmp_path: Path
) -> None:
    rng, task = random.Random(1), TASKS[name]
    good = [json.dumps(row).encode() for row in good_rows(root, name, 20)]
    spoilt = list(spoilt_rows(good_rows(root, name, 1), rng))
    spoilt += [mutated(rng.choice(good), rng) for _ in range(100)]
    path = tmp_path / "t" / "train.jsonl"
    path.parent.mkdir()
    path.write_bytes(b"\n".join([*good, *spoilt, *good]))
    reader = FolderSource(tmp_path).reader("t", "train")
    pictures = Pictures(root)
    classes = CLASSES if task.label else {}

    def work() -> dict[str, int]:
        found = [example for _, example in read_examples(reader, task, NONE, classes)]
        errors = [e for e in found if isinstance(e, RowError)]
        assert all(map(one_clear_line, errors)), [str(e) for e in errors if not one_clear_line(e)]
        assert all(str(path) in e.where and ", line " in e.where for e in errors)
        assert len({e.kind for e in errors}) >= 8
        skip = BadRows("skip", 1.0)
        table = prepare(reader, task, SHARED, pictures, tmp_path / "cache", skip, classes)
        texts = {json.dumps(row["query"]["text"]) for row in table}
        return {"bad": len(errors), "left": len(table), "rows": len(found), "texts": len(texts)}

    seen = contained(work, seconds=60, megabytes=400)
    assert seen["bad"] >= 80 and seen["left"] >= 40  # 4 tasks: over 320 bad rows
    assert seen["left"] <= seen["rows"] - seen["bad"]


def test_what_is_skipped_is_decided_once(root: Path, tmp_path: Path, caplog: Any) -> None:
    good = [json.dumps(row).encode() for row in good_rows(root, "text_pair", 50)]
    path = tmp_path / "t" / "train.jsonl"
    path.parent.mkdir()
    path.write_bytes(b"\n".join([*good[:20], b"{", *good[20:], b'{"text_a": 1}']))
    reader = FolderSource(tmp_path).reader("t", "train")

    def run(cache: str, policy: str = "skip", most: float = 0.05) -> Any:
        bad = BadRows(policy, most).check()
        return prepare(reader, PAIRS, SHARED, Pictures(tmp_path), tmp_path / cache, bad)

    with caplog.at_level(logging.WARNING):
        first = run("a")
    assert "2 of 52 rows are bad (1 missing column, 1 not JSON) and are left out" in caplog.text
    assert "line 21" in caplog.text
    assert len(first) == 50 and first[:] == run("b")[:] == run("a")[:]
    assert run("a", most=2 / 52)[:] == first[:]  # no more than the cap
    with pytest.raises(ValueError, match=r"2 of 52.*3\.8%, more than data\.max_bad_share=0\.03"):
        run("a", most=0.03)
    with pytest.raises(ValueError, match="line 21: not JSON"):
        run("a", "error")
    with pytest.raises(ValueError, match="bad_rows"):
        run("a", "drop")


def test_long_and_deep_lines_take_little_memory_and_time(tmp_path: Path) -> None:
    good = b'{"text_a": "a", "text_b": "b", "score": 1}\n'
    path = tmp_path / "t" / "train.jsonl"
    path.parent.mkdir()
    long = b'{"text_a": "%s", "text_b": "b", "score": 1}\n'
    text = b"<|im_end|>" * (MAX_ROW // 10 - 10)
    with path.open("wb") as file:
        file.write(good + b"[" * (MAX_ROW - 1) + b"\n" + b"{}," * (MAX_ROW // 3) + b"\n")
        file.write(b"[%s]\n" % b",".join([b"[]"] * (MAX_ROW // 3 - 1)))
        file.write(long % text + long % (b"\\n" * (MAX_ROW // 2 - 50)))
        file.seek(2**30, os.SEEK_CUR)  # a line of a gigabyte that takes no space on the disk
        file.write(b"\n" + good)
    reader = FolderSource(tmp_path).reader("t", "train")

    def work() -> dict[str, int]:
        skip = BadRows("skip", 1.0)
        prepared = prepare(reader, PAIRS, SHARED, Pictures(tmp_path), tmp_path / "c", skip)
        assert [len(row["query"]["ids"]) for row in prepared] == [1, 512, 1]
        (counts,) = (tmp_path / "c").glob("*.json")
        return json.loads(counts.read_text())["kinds"]

    kinds = contained(work, seconds=60, megabytes=450)
    wanted = ["nested too deep", "not JSON", "not an object", "empty", "line too long"]
    assert kinds == dict.fromkeys(wanted, 1)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (gzip.compress(b'{"a": 1}', mtime=0), "gzip"),
        ('{"a": 1}\n'.encode("utf-16"), "UTF-16"),
        (b"PK\x03\x04abc", "zip"),
        (b"PAR1abc", "Parquet"),
    ],
)
def test_files_of_another_format_are_named(data: bytes, words: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=words):
        read(tmp_path, data)


def test_marks_line_ends_and_a_cut_end(tmp_path: Path) -> None:
    row = b'{"text_a": "a", "text_b": "b", "score": 0.5}'
    rows = read(tmp_path, b"\xef\xbb\xbf" + row + b"\r\n\r\n" + row + b"\n" + row[:-3])
    assert rows[0] == rows[1] and rows[0].score == 0.5
    assert "line 4: not JSON" in str(rows[2]) and len(rows) == 3
    assert read(tmp_path, b"") == [] and read(tmp_path, b"\n\n") == []


@pytest.mark.parametrize("ending", [".jsonl", ".parquet", ".arrow"])
def test_a_pipe_or_a_folder_in_place_of_a_file(tmp_path: Path, ending: str) -> None:
    (tmp_path / "t").mkdir()
    os.mkfifo(tmp_path / "t" / f"train{ending}")
    with pytest.raises(ValueError, match="is not a file"):
        list(FolderSource(tmp_path).reader("t", "train"))


def table_files() -> dict[str, bytes]:
    """A good Parquet file and good Arrow files of both formats."""
    rows = [{"text_a": f"câu {i}", "text_b": f"b {i}", "score": i / 9} for i in range(10)]
    table, files = pa.Table.from_pylist(rows), {}
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    files[".parquet"] = sink.getvalue().to_pybytes()
    for name, new in ((".arrow", pa.ipc.new_stream), (".arrow, file", pa.ipc.new_file)):
        sink = pa.BufferOutputStream()
        with new(sink, table.schema) as writer:
            writer.write_table(table)
        files[name] = sink.getvalue().to_pybytes()
    return files


@pytest.mark.parametrize("name", table_files())
def test_damaged_tables_are_refused_in_one_line(name: str, tmp_path: Path) -> None:
    data, ending = table_files()[name], name.partition(",")[0]
    assert len(read(tmp_path, data, ending=ending)) == 10
    rng = random.Random(2)
    spoilt = [data[: len(data) * i // 12] for i in range(12)] + [b"PAR1", b"ARROW1", b"\0" * 99]
    spoilt += [mutated(data, rng) for _ in range(150)]

    def work() -> int:
        refused = 0
        for broken in spoilt:
            try:
                found = read(tmp_path, broken, ending=ending)
            except ValueError as error:
                assert one_clear_line(error) and "train" in str(error), str(error)
                refused += 1
            else:
                errors = [e for e in found if isinstance(e, RowError)]
                assert all(map(one_clear_line, errors)), list(map(str, errors))
        return refused

    assert contained(work, seconds=60, megabytes=300) >= 12


@pytest.mark.parametrize("name", table_files())
def test_a_dictionary_of_one_long_text_takes_little_memory(name: str, tmp_path: Path) -> None:
    """Written once, it would stand in each of a small file's rows: 16 GB."""
    indices = pa.array([0, 1, None, *[1] * 1997], pa.int32())
    long = pa.DictionaryArray.from_arrays(indices, pa.array(["a", "b" * (8 << 20)]))
    turns = pa.ListArray.from_arrays(
        pa.array(range(2001), pa.int32()), pa.StructArray.from_arrays([long], ["question"])
    )
    texts = pa.array([f"text {i}" for i in range(2000)])
    table = pa.table(
        {"text_a": long, "text_b": texts, "turns": turns, "score": pa.array([1.0] * 2000)}
    )
    path = tmp_path / "t" / f"train{name.partition(',')[0]}"
    path.parent.mkdir()
    if name == ".parquet":
        pq.write_table(table, path, compression="zstd")
        assert path.stat().st_size < 100_000
    else:
        new = pa.ipc.new_stream if name == ".arrow" else pa.ipc.new_file
        with new(str(path), table.schema) as writer:
            writer.write_table(table)
    reader = FolderSource(tmp_path).reader("t", "train")

    def work() -> list[str]:
        return [str(e.what) if isinstance(e, RowError) else e["text_b"] for _, e in reader]

    found = contained(work, seconds=60, megabytes=400)
    assert found[0] == "text 0" and found[2] == "text 2" and len(found) == 2000
    assert set(found[3:]) == {f"longer than {MAX_ROW:,} bytes"}


def test_a_table_with_wrong_offsets_ends_no_process(tmp_path: Path) -> None:
    offsets = pa.py_buffer(b"".join(i.to_bytes(4, "little") for i in (0, 1, 2**30, 3)))
    text = pa.Array.from_buffers(pa.string(), 3, [None, offsets, pa.py_buffer(b"abc")])
    good = pa.array(["x", "y", "z"])
    batch = pa.record_batch({"text_a": text, "text_b": good, "score": pa.array([1.0, 1.0, 1.0])})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    data = sink.getvalue().to_pybytes()
    found = contained(
        lambda: [str(e) for e in read(tmp_path, data, ending=".arrow")], seconds=20, megabytes=200
    )
    assert "Content(text='a'" in found[0] and "row 1: damaged" in found[1]


def test_a_value_that_is_none_in_python_is_its_rows_fault(tmp_path: Path) -> None:
    """A date beyond the year 9999, which Arrow knows and Python does not."""
    dates = pa.array([0, 2**61, 0], pa.timestamp("us"))
    table = pa.table({"text_a": list("abc"), "text_b": list("xyz"), "day": dates})
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    task = Task({"query_text": "text_a", "document_text": "text_b"}, prefix="<x>")
    rows = read(tmp_path, sink.getvalue().to_pybytes(), task, ending=".parquet")
    assert rows[0].query.text == "a" and rows[2].query.text == "c"
    assert isinstance(rows[1], RowError) and "row 1: damaged" in str(rows[1])


def test_tables_with_other_columns_name_what_is_missing(tmp_path: Path) -> None:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"x": [1, 2]}), sink)
    rows = read(tmp_path, sink.getvalue().to_pybytes(), ending=".parquet")
    assert [row.kind for row in rows] == ["missing column"] * 2
    assert "row 0: no column 'text_a' for query_text; the row has x" in str(rows[0])


def test_texts_are_cleaned_of_what_a_terminal_obeys(tmp_path: Path) -> None:
    row = {"text_a": "a\x1b[2Jb\x00\x07\n\tc", "text_b": "\u200b\u202e", "score": 1}
    (error,) = read(tmp_path, json.dumps(row).encode())
    assert error.kind == "empty" and error.field == "text_b"
    (example,) = read(tmp_path, json.dumps({**row, "text_b": "b"}).encode())
    assert example.query.text == "a [2Jb  \n\tc"


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters())
    | st.binary(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)
FIELDS = ("text_a", "text_b", "score", "image", "text", "turns", "negatives", "labels", "lang")


@pytest.mark.parametrize("name", TASKS)
@given(record=st.dictionaries(st.sampled_from(FIELDS), JSON))
@settings(max_examples=50, deadline=None)
def test_any_values_make_an_example_or_one_line(name: str, record: dict[str, Any]) -> None:
    try:
        example = TASKS[name].example(record, "rows.jsonl, line 1")
    except RowError as error:
        assert one_clear_line(error) and error.kind and str(error).startswith("rows.jsonl, line 1")
    else:
        assert example.positive is not None and isinstance(example.query.key, int)


@given(data=st.binary(max_size=200) | st.lists(st.sampled_from(LINES)).map(b"\n".join))
@settings(max_examples=100, deadline=None)
def test_any_bytes_make_rows_or_one_line(data: bytes, tmp_path_factory: Any) -> None:
    try:
        found = read(tmp_path_factory.getbasetemp(), data)
    except ValueError as error:
        assert one_clear_line(error)
    else:
        assert all(one_clear_line(e) for e in found if isinstance(e, RowError))


SPECIAL = sorted(SHARED.tokenizer.get_added_vocab(), key=len)
PARTS = [*SPECIAL, "<", "|", ">", "<|", "im", "a ", "\n", "đ"]


@pytest.mark.parametrize("mode", ["token", "text", "none"])
@given(
    parts=st.lists(
        st.sampled_from([*SPECIAL, "<", "|", ">", "<|", "im", "a ", "\n", "đ"]) | st.text()
    )
)
@settings(max_examples=60, deadline=None)
def test_no_text_becomes_a_special_token(mode: str, parts: list[str]) -> None:
    text = "".join(parts)
    own = MODES[mode]
    ids = own.encode([text])[0]
    special = set(own.tokenizer.get_added_vocab().values())
    assert not special.intersection(ids)
    framed = own.frame("ocr", ids, 2)
    assert framed.count(own.image_id) == 2
    assert sum(i in special for i in framed) == 5 + (mode == "token")  # start, 2 pads, ends
    if len(ids) < own.max_tokens:
        assert own.tokenizer.decode(ids) == own.tokenizer.decode(
            [i for part in _single(own, text) for i in part]
        )


MODES = {mode: tokens(mode) for mode in ("token", "text", "none")}


def _single(own: Any, text: str) -> list[list[int]]:
    """The text's characters, tokenised one by one: none of them can be a special token."""
    return own.tokenizer(list(text), add_special_tokens=False)["input_ids"] if text else []


def test_a_prefix_in_a_text_differs_from_the_prefix() -> None:
    own = MODES["token"]
    assert own.frame("ocr", own.encode(["a"])[0], 0) != own.frame(
        "ocr", own.encode(["<ocr>a"])[0], 0
    )
    prefix = own.prefix("ocr")[0]
    assert own.frame("ocr", own.encode(["<ocr><ocr>"])[0], 0).count(prefix) == 1


def test_every_beginning_of_a_row_is_refused(tmp_path: Path) -> None:
    row = json.dumps({"text_a": "a", "text_b": "b", "score": 0.5}).encode()
    for _ in range(3):
        assert isinstance(read(tmp_path, cut(row, random.Random(0)))[0], RowError)
    rows = read(tmp_path, b"\n".join(row[:i] for i in range(1, len(row))))
    assert len(rows) == len(row) - 1 and all(isinstance(e, RowError) for e in rows)
