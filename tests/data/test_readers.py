"""Readers, column mapping and prepared tables, on real small files."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Dataset
from PIL import Image

from polyqwen.data.images.images import Pictures
from polyqwen.data.rows.sources import FolderSource, HubSource
from polyqwen.data.rows.task import Task
from polyqwen.data.rows.types import Content
from polyqwen.data.tables.prepare import prepare
from tests.data.test_tokens import tokens

ROWS = [{"a": f"câu {i}", "b": f"sentence {i}", "s": i / 4, "lang": "vi"} for i in range(5)]
TASK = Task({"query_text": "a", "document_text": "b", "score": "s"}, prefix="<text_pair>")


def write(root: Path, ending: str, rows: list[dict] = ROWS) -> Path:
    folder = root / "pairs"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"train{ending}"
    if ending == ".jsonl":
        path.write_text("\n\n".join(json.dumps(r) for r in rows) + "\n", encoding="utf-8")
    elif ending == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif ending == ".arrow":
        table = pa.Table.from_pylist(rows)
        with pa.OSFile(str(path), "wb") as f, pa.ipc.new_stream(f, table.schema) as w:
            w.write_table(table)
    elif ending == "/arrow":
        Dataset.from_list(rows).save_to_disk(str(folder / "train"))
    elif ending == "/parquet":
        (folder / "train").mkdir()
        for i in range(2):
            part = pa.Table.from_pylist(rows[i * 3 : i * 3 + 3])
            pq.write_table(part, folder / "train" / f"{i}.parquet")
    return path


@pytest.mark.parametrize("ending", [".jsonl", ".parquet", ".arrow", "/arrow", "/parquet"])
def test_every_format_gives_the_same_rows(tmp_path: Path, ending: str) -> None:
    write(tmp_path, ending)
    reader = FolderSource(tmp_path).reader("pairs", "train")
    assert [record for _, record in reader] == ROWS
    assert reader.count() == len(ROWS)
    before = reader.fingerprint()
    assert before == FolderSource(tmp_path).reader("pairs", "train").fingerprint()


def test_hub_source_reads_a_split_by_its_own_name(tmp_path: Path) -> None:
    folder = tmp_path / "owner_name"
    folder.mkdir()
    pq.write_table(pa.Table.from_pylist(ROWS), folder / "validation.parquet")
    pq.write_table(pa.Table.from_pylist(ROWS[:1]), folder / "train.parquet")
    source = HubSource({"pairs": {"name": str(folder)}}, splits={"dev": "validation"})
    assert [record for _, record in source.reader("pairs", "dev")] == ROWS
    assert source.reader("pairs", "dev").count() == len(ROWS)
    with pytest.raises(ValueError, match="no hub data set for task other"):
        source.reader("other", "dev")


@pytest.mark.parametrize("ending", [".jsonl", ".parquet", ".arrow"])
def test_rows_of_another_format_are_not_counted(tmp_path: Path, ending: str) -> None:
    write(tmp_path, ending).write_bytes(b"PK\x03\x04 something else")
    with pytest.raises(ValueError, match="is not"):
        FolderSource(tmp_path).reader("pairs", "train").count()


def test_missing_things_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not a folder"):
        FolderSource(tmp_path / "nowhere")
    write(tmp_path, ".jsonl")
    with pytest.raises(ValueError, match=r"no test split.*\.jsonl, \.parquet, \.arrow"):
        FolderSource(tmp_path).reader("pairs", "test")


def test_broken_json_names_the_line(tmp_path: Path) -> None:
    path = write(tmp_path, ".jsonl")
    path.write_text('{"a": 1}\n{"a": \n', encoding="utf-8")
    first, second = FolderSource(tmp_path).reader("pairs", "train")
    assert first[1] == {"a": 1} and "line 2: not JSON" in str(second[1])
    path.write_text("[1]\n", encoding="utf-8")
    ((_, only),) = FolderSource(tmp_path).reader("pairs", "train")
    assert "line 1: not a JSON object" in str(only)


def test_fields_map_columns() -> None:
    example = TASK.example(ROWS[2], "here")
    assert (example.query, example.positive) == (Content("câu 2"), Content("sentence 2"))
    assert example.score == 0.5 and example.info == {"lang": "vi"}
    negatives = Task(
        {"query_text": "q", "document_text": "d", "negatives": "n"}, prefix="<x>", info=()
    ).example({"q": "1", "d": "2", "n": ["3", "4"]}, "here")
    assert negatives.negatives == (Content("3"), Content("4")) and negatives.score is None


def test_conversations_end_in_a_question() -> None:
    task = Task(
        {"query_image": "im", "turns": "t"}, prefix="<x>", turn_question="q", turn_answer="a"
    )
    turns = [{"q": "màu gì?", "a": "đỏ"}, {"q": "còn nó?", "a": "xanh"}]
    example = task.example({"im": "a.png", "t": turns}, "here")
    assert example.query == Content("màu gì?\nđỏ\ncòn nó?", "a.png")
    assert example.positive == Content("xanh")


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"a": "x", "s": 0.5}, "here: no column 'b' for document_text; the row has a, s"),
        ({"a": "x", "b": "y", "s": 1.5}, r"here: s=1.5 lies outside \[0, 1\]"),
        ({"a": "x", "b": "y", "s": "high"}, "here: s='high' is not a number"),
        ({"a": "x", "b": "y", "s": float("nan")}, "here: s=nan is not a finite number"),
        ({"a": " ", "b": "y", "s": 0.5}, "here: the query is empty"),
        ({"a": "x", "b": None, "s": 0.5}, "here: the document is empty"),
    ],
)
def test_bad_rows_are_named(record: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TASK.example(record, "here")


@pytest.mark.parametrize("turns", [[], None, [{"q": "x"}], "abc"])
def test_bad_turns_are_named(turns: object) -> None:
    task = Task({"turns": "t"}, prefix="<x>")
    with pytest.raises(ValueError, match="here: t must be a non-empty list"):
        task.example({"t": turns}, "here")


def test_bad_tasks_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\['query_txt'\] are unknown"):
        Task({"query_txt": "a"}, prefix="<x>")
    with pytest.raises(ValueError, match="share"):
        Task({"query_text": "a"}, prefix="<x>", share=0)
    with pytest.raises(ValueError, match="batch_size"):
        Task({"query_text": "a"}, prefix="<x>", batch_size=0)


def test_what_was_encoded_before_makes_no_other_table(tmp_path: Path) -> None:
    write(tmp_path, ".jsonl")
    reader, used = FolderSource(tmp_path).reader("pairs", "train"), tokens()
    for _ in range(2):
        prepare(reader, TASK, used, Pictures(tmp_path), tmp_path / "cache")
    used.encode(["câu"])
    prepare(reader, TASK, used, Pictures(tmp_path), tmp_path / "cache")
    assert len(list((tmp_path / "cache").iterdir())) == 1


def test_prepared_once_and_again_after_an_edit(tmp_path: Path) -> None:
    path, cache = write(tmp_path, ".jsonl"), tmp_path / "cache"
    source, pictures = FolderSource(tmp_path), Pictures(tmp_path)

    def run() -> Dataset:
        return prepare(source.reader("pairs", "train"), TASK, tokens(), pictures, cache)

    table = run()
    made = {p: p.stat().st_mtime_ns for p in cache.iterdir()}
    assert len(table) == 5 and table[4]["query"]["text"] == "câu 4"
    assert table[4]["query"]["ids"] == tokens().encode(["câu 4"])[0]
    assert table[0]["cost"] == len(table[0]["query"]["ids"]) + len(table[0]["document"]["ids"])
    assert len(run()) == 5
    assert {p: p.stat().st_mtime_ns for p in cache.iterdir()} == made
    path.write_text(json.dumps(ROWS[0] | {"a": "khác"}) + "\n", encoding="utf-8")
    assert [row["query"]["text"] for row in run()] == ["khác"]
    assert len(list(cache.iterdir())) == 2


def test_a_failed_preparation_leaves_nothing(tmp_path: Path) -> None:
    write(tmp_path, ".jsonl", [{**ROWS[0], "s": 7}])
    cache, reader = tmp_path / "cache", FolderSource(tmp_path).reader("pairs", "train")
    with pytest.raises(ValueError, match=r"train\.jsonl, line 1: s=7"):
        prepare(reader, TASK, tokens(), Pictures(tmp_path), cache)
    assert list(cache.iterdir()) == []


def test_empty_files_and_missing_pictures_are_named(tmp_path: Path) -> None:
    path = write(tmp_path, ".jsonl", [])
    reader = FolderSource(tmp_path).reader("pairs", "train")
    with pytest.raises(ValueError, match=r"no rows in .*train\.jsonl"):
        prepare(reader, TASK, tokens(), Pictures(tmp_path), tmp_path / "cache")
    Image.new("RGB", (56, 28)).save(tmp_path / "a.png")
    rows = [{"i": "a.png", "b": "x"}, {"i": "b.png", "b": "x"}]
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    task = Task({"query_image": "i", "document_text": "b"}, prefix="<x>")
    with pytest.raises(ValueError, match=r"line 2: picture .*b\.png cannot be read"):
        prepare(reader, task, tokens(), Pictures(tmp_path), tmp_path / "cache")
