"""``embed`` and ``search``: files and rows to vectors on disk, and back by what is near."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from polyqwen import EmbeddingModel
from polyqwen.__main__ import main
from polyqwen.inference.vectors import Entry, VectorFile, write_vectors
from tests.conftest import ROOT, Configure
from tests.saved_runs import make_run


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> None:
    monkeypatch.setattr(sys, "argv", ["polyqwen", *map(str, arguments)])
    main()


@pytest.fixture
def model(configure: Configure, tmp_path: Path) -> Path:
    return make_run(configure, tmp_path / "run")


def test_rows_are_found_again(
    model: Path,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    index = tmp_path / "index.parquet"
    rows = folder / "ocr" / "test.jsonl"
    options = ("--model", model, "--task", "ocr", "--root", folder, "--text", "none")
    run(monkeypatch, "embed", rows, "-o", index, *options)
    assert "32 vectors of 128 numbers" in capsys.readouterr().out
    wanted = [json.loads(line) for line in rows.read_text(encoding="utf-8").splitlines()]
    stored = VectorFile(index)
    vectors = np.concatenate(list(stored.blocks()))
    direct = EmbeddingModel.load(model, device="cpu").encode(
        [folder / row["image"] for row in wanted], task="ocr"
    )
    np.testing.assert_allclose(vectors, direct, atol=1e-5)
    run(monkeypatch, "search", index, folder / wanted[7]["image"], "-k", 3, "--json")
    hits = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(hits) == 3 and hits[0]["row"] == 7 and hits[0]["cosine"] == pytest.approx(1.0)
    assert hits[0]["image"] == str(folder / wanted[7]["image"])
    run(monkeypatch, "search", index, "a text", "-k", 2)
    assert len(capsys.readouterr().out.splitlines()) == 2


def test_files_of_several_kinds(
    model: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    notes = tmp_path / "notes"
    notes.mkdir()
    (notes / "b.txt").write_text("the second", encoding="utf-8")
    (notes / "a.txt").write_text("the first", encoding="utf-8")
    picture = next((folder / "images").rglob("*.png"))
    (notes / "c.PNG").write_bytes(picture.read_bytes())
    table = tmp_path / "rows.parquet"
    pq.write_table(pa.table({"name": ["one", "two"]}), table)
    index = tmp_path / "index.parquet"
    options = ("--model", model, "--text", "name", "--truncate-dim", 16, "--batch-size", 2)
    run(monkeypatch, "embed", notes, table, "-o", index, *options)
    stored = VectorFile(index)
    assert len(stored) == 5 and next(stored.blocks()).shape == (5, 16)
    entries = pq.read_table(index).select(["text", "image"]).to_pylist()
    assert [e["text"] for e in entries] == ["the first", "the second", "", "one", "two"]


@pytest.mark.parametrize("blocks", [1, 3, 7])
def test_search_is_exact_whatever_the_blocks(tmp_path: Path, blocks: int) -> None:
    draw = np.random.default_rng(0)
    vectors = draw.normal(size=(50, 8)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    vectors[30] = vectors[10]  # a tie: the earlier row first
    entries = [Entry(f"row {i}", None if i % 2 else f"{i}.png") for i in range(50)]
    parts = np.array_split(np.arange(50), blocks)
    given = (([entries[i] for i in part], vectors[part]) for part in parts)
    path = tmp_path / "v.parquet"
    assert write_vectors(path, given, {"model": "m"}) == 50
    hits = VectorFile(path).search(vectors[10], 5)
    wanted = np.lexsort((np.arange(50), -(vectors @ vectors[10])))[:5]
    assert [hit.row for hit in hits] == wanted.tolist() and [h.row for h in hits[:2]] == [10, 30]
    assert hits[0].entry == entries[10]
    with pytest.raises(ValueError, match="vectors of 8 numbers, the query of 4"):
        VectorFile(path).search(vectors[0, :4], 1)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("embed", "nope.txt", "-o", "v.parquet"), "there is no nope.txt"),
        (("embed", "README.md", "-o", "v.parquet"), "README.md: only .jpg"),
        (("embed", "conf", "-o", "v.parquet"), "conf holds no pictures"),
        (("embed", "README.md", "-o", "v.npy"), "give it the ending .parquet"),
        (("search", "nope.parquet", "x"), "there is no index nope.parquet"),
        (("search", "README.md", "x"), "README.md is not a readable Parquet file"),
    ],
    ids=str,
)
def test_bad_input_is_one_line_and_leaves_nothing(
    model: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    says: str,
) -> None:
    monkeypatch.chdir(ROOT)
    extra = ("--model", str(model)) if arguments[0] == "embed" else ()
    with pytest.raises(SystemExit) as error:
        run(monkeypatch, *arguments, *extra)
    told = capsys.readouterr().err
    assert error.value.code == 1 and says in told and told.count("\n") == 1
    assert not list(ROOT.glob("v.*"))


def test_rows_cannot_name_pictures_outside_their_folder(model: Path, tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text(json.dumps({"image": "../../etc/hostname.png"}) + "\n", encoding="utf-8")
    command = [sys.executable, "-m", "polyqwen", "embed", str(rows), "--model", str(model)]
    done = subprocess.run(
        [*command, "-o", str(tmp_path / "v.parquet")], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 1 and "lies outside" in done.stderr, done.stderr
