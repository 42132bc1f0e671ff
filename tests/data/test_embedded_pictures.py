"""Pictures that lie in the rows: taken out once, then like any other."""

import json
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from polyqwen import EmbeddingModel
from polyqwen.app.commands.split import SPLITS, split
from polyqwen.app.commands.validate import validate
from polyqwen.build.run import build
from polyqwen.data.images.embedded import FOLDER
from polyqwen.data.images.images import Pictures
from polyqwen.data.rows.arrow import ParquetReader
from polyqwen.data.rows.bad_rows import BadRows
from polyqwen.data.rows.jsonl import JsonlReader
from polyqwen.data.rows.sources import HubSource
from polyqwen.data.rows.task import Task
from polyqwen.data.rows.types import PictureError, RowError
from polyqwen.data.tables.prepare import prepare
from polyqwen.inference.vectors import VectorFile
from tests.app.test_embed import run
from tests.conftest import Configure
from tests.data.test_tokens import SHARED
from tests.saved_runs import make_run

OCR = Task({"query_image": "image", "document_text": "text"}, prefix="<ocr>")


def rows_of(folder: Path, count: int = 12) -> list[dict[str, Any]]:
    lines = (folder / "ocr" / "train.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines[:count]]


def within(folder: Path, rows: list[dict[str, Any]], struct: bool = True) -> list[dict[str, Any]]:
    """The rows with the bytes of their pictures, as the hub's data sets have them or bare."""
    packed = []
    for row in rows:
        data = (folder / row["image"]).read_bytes()
        packed.append({**row, "image": {"bytes": data, "path": "a.png"} if struct else data})
    return packed


@pytest.mark.parametrize("struct", [True, False])
def test_such_rows_are_those_of_files(folder: Path, tmp_path: Path, struct: bool) -> None:
    rows = rows_of(folder)
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.Table.from_pylist(within(folder, [*rows, rows[0]], struct)), path)
    pictures = Pictures(folder, store=tmp_path / "store")
    found = prepare(ParquetReader(path), OCR, SHARED, pictures, tmp_path / "tables")
    wanted = prepare(
        JsonlReader(folder / "ocr" / "train.jsonl"), OCR, SHARED, pictures, tmp_path / "tables"
    ).select(range(len(rows)))
    for own, given in zip(found, wanted, strict=False):
        assert own["query"]["image"] != given["query"]["image"]
        for side in ("query", "document"):
            for key in ("ids", "text", "height", "width"):
                assert own[side][key] == given[side][key]
        names = [row["query"]["image"] for row in (own, given)]
        first, second = (np.asarray(pictures.open(name)) for name in names)
        assert (first == second).all()
    assert found[0]["query"] == found[len(rows)]["query"]  # one picture, one content
    kept = [p for p in (tmp_path / "store").rglob("*") if p.is_file()]
    assert len(kept) == len({(folder / row["image"]).read_bytes() for row in rows})


def test_data_sets_of_the_hub(folder: Path, tmp_path: Path) -> None:
    rows = within(folder, rows_of(folder, 4))
    made = datasets.Dataset.from_list(rows).cast_column("image", datasets.Image())
    (tmp_path / "set").mkdir()
    made.to_parquet(tmp_path / "set" / "train.parquet")
    reader = HubSource({"ocr": {"name": str(tmp_path / "set")}}).reader("ocr", "train")
    pictures = Pictures(Path(), store=tmp_path / "store")
    found = prepare(reader, OCR, SHARED, pictures, tmp_path / "tables")
    assert len(found) == 4 and min(found[0]["query"]["height"], found[0]["query"]["width"]) > 0


def test_bad_ones_are_bad_rows(folder: Path, tmp_path: Path) -> None:
    rows = within(folder, rows_of(folder, 3))
    rows[1]["image"]["bytes"] = b"no picture"
    rows[2]["image"] = {"bytes": None, "path": "embedded:00/../../secret.png"}
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.Table.from_pylist(rows), path)
    pictures = Pictures(folder, store=tmp_path / "store")
    with pytest.raises(RowError, match=r"row 1: picture .*not a JPEG, PNG, WEBP"):
        prepare(ParquetReader(path), OCR, SHARED, pictures, tmp_path / "tables")
    skip = BadRows("skip", 1.0)
    assert len(prepare(ParquetReader(path), OCR, SHARED, pictures, tmp_path / "t", skip)) == 1
    without = Pictures(folder)
    with pytest.raises(RowError, match=r"row 0: image must be the path"):
        prepare(ParquetReader(path), OCR, SHARED, without, tmp_path / "u")


def test_one_that_is_gone_is_named_with_what_to_do(folder: Path, tmp_path: Path) -> None:
    pictures = Pictures(folder, store=tmp_path / "store")
    name = pictures.named(b"\x89PNG and so on")
    assert pictures.path(name).suffix == ".png"
    pictures.path(name).unlink()
    with pytest.raises(PictureError, match="is gone; remove the tables"):
        pictures.open(name)


def test_validate_and_train_read_them(folder: Path, tmp_path: Path, configure: Configure) -> None:
    root = tmp_path / "mine"
    (root / "ocr").mkdir(parents=True)
    for i, name in enumerate(SPLITS):
        rows = within(folder, rows_of(folder, 60)[20 * i : 20 * i + 20])
        pq.write_table(pa.Table.from_pylist(rows), root / "ocr" / f"{name}.parquet")
    own = [f"data.root={root}", f"data_cache={tmp_path / 'cache'}", "task=[ocr]"]
    own.append("curriculum=single_phase")
    assert validate(own) == 0
    assert any((tmp_path / "cache" / FOLDER).rglob("*.png"))
    data = build(configure(f"run_dir={tmp_path / 'run'}", "data=folder", *own)).data
    batch = next(iter(data.eval_loader("train", ("ocr", "none"))))
    assert len(batch.tasks["ocr"].query) == 20 and batch.images is not None
    assert len(batch.images.grid) == 20


def test_split_makes_files_of_them(folder: Path, tmp_path: Path) -> None:
    rows = within(folder, rows_of(folder, 40))
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "rows.parquet")
    split(tmp_path / "rows.parquet", tmp_path / "data" / "ocr", "image", (0.5, 0.25, 0.25))
    text = {row["text"]: row["image"]["bytes"] for row in rows}
    pictures = Pictures(tmp_path / "data")
    for name in SPLITS:
        for line in (tmp_path / "data" / "ocr" / f"{name}.jsonl").open(encoding="utf-8"):
            row = json.loads(line)
            assert pictures.path(row["image"]).read_bytes() == text[row["text"]]


def test_embed_makes_files_of_them(
    folder: Path, tmp_path: Path, configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = make_run(configure, tmp_path / "run")
    rows = rows_of(folder, 3)
    pq.write_table(pa.Table.from_pylist(within(folder, rows)), tmp_path / "rows.parquet")
    index = tmp_path / "index.parquet"
    options = ("--model", made, "--task", "ocr", "--text", "none")
    run(monkeypatch, "embed", tmp_path / "rows.parquet", "-o", index, *options)
    stored = np.concatenate(list(VectorFile(index).blocks()))
    model = EmbeddingModel.load(made, device="cpu")
    direct = model.encode([folder / row["image"] for row in rows], task="ocr")
    np.testing.assert_allclose(stored, direct, atol=1e-5)
