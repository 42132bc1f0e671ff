"""Distillation of a teacher's vectors: the documented round, bad vectors, what the loss teaches."""

import csv
import json
import math
import re
import shlex
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from torch.nn import functional as F
from torch.testing import assert_close

from polyqwen import EmbeddingModel
from polyqwen.__main__ import main
from polyqwen.app.train import train
from polyqwen.build.run import build
from polyqwen.data.images.images import Pictures
from polyqwen.data.rows.sources import FolderSource
from polyqwen.data.rows.task import Task
from polyqwen.data.rows.types import Example, RowError
from polyqwen.data.tables.prepare import read_examples
from polyqwen.losses.relational_kl import RelationalKLLoss
from polyqwen.losses.types import Pairs
from tests.conftest import ROOT, Configure
from tests.data.test_collator import rows_of
from tests.docs.test_doc_commands import commands_of
from tests.saved_runs import make_run

PAGE = (ROOT / "docs" / "losses.md").read_text(encoding="utf-8")
PAGE = PAGE.partition("\n## A teacher's ")[2].partition("\n## ")[0]
FIELDS = {"query_text": "a", "document_text": "b", "teacher_query": "v", "teacher_document": "w"}
QUICK = (
    "~callbacks.progress",
    "+trainer.enable_progress_bar=false",
    "trainer.enable_model_summary=false",
    "callbacks.step_log.every=1",
    "curriculum.total_steps=3",
    "baseline=false",
    "ablations=[]",
)


def documented_round(data: Path, taught: Path, teacher: Path, monkeypatch: Any) -> list[str]:
    """Follows the page for all splits; returns the overrides that it trains with."""
    embed = [line for line in commands_of(PAGE) if "polyqwen embed" in line]
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, flags=re.S)
    (taught / "text_pair").mkdir(parents=True)
    monkeypatch.chdir(taught)
    assert len(embed) == 2
    for split in ("train", "dev", "test"):
        places = {"DATA": str(data), "TAUGHT": str(taught), "TEACHER": str(teacher)}
        places |= {"train.": f"{split}."}

        def here(text: str, places: dict[str, str] = places) -> str:
            return re.sub("|".join(map(re.escape, places)), lambda m: places[m[0]], text)

        for line in embed:
            monkeypatch.setattr(sys, "argv", ["polyqwen", *shlex.split(here(line))[3:]])
            main()
        exec(here(code), {})
    (line,) = (text for text in commands_of(PAGE) if text.startswith("python train.py"))
    return [word for word in shlex.split(line)[2:] if not word.startswith("data")]


def test_the_documented_round(
    configure: Configure, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    teacher = make_run(configure, tmp_path / "teacher", "model.projection.output_size=48")
    overrides = documented_round(folder, tmp_path / "taught", teacher, monkeypatch)
    data = ["data=folder", f"data.root={tmp_path / 'taught'}", f"run_dir={tmp_path / 'run'}"]
    cfg = configure(*data, *overrides, *QUICK, small=True)

    made = build(cfg)
    rows = rows_of(made, *(("text_pair", i) for i in (5, 0, 9)))
    pairs = made.data.collator(rows).tasks["text_pair"]
    read = [json.loads(x) for x in (folder / "text_pair/train.jsonl").read_text().splitlines()]
    model = EmbeddingModel.load(teacher, device="cpu")
    for side, column in (("query", "text_a"), ("document", "text_b")):
        expected = model.encode([read[i][column] for i in (5, 0, 9)], task="text_pair")
        found = getattr(pairs, f"teacher_{side}")
        assert found.shape == (3, 48) and found.dtype == torch.float32
        np.testing.assert_allclose(found.numpy(), expected, atol=1e-5)

    train(cfg)
    with (tmp_path / "run" / "csv" / "metrics.csv").open() as file:
        logged = [row for row in csv.DictReader(file) if row["train/loss/relational_kl"]]
    assert len(logged) == 3 and all(float(r["train/loss/relational_kl"]) > 1e-3 for r in logged)
    assert all(float(row["weight/relational_kl"]) > 0 for row in logged if row["weight/text_pair"])


VECTOR = [0.6, 0.8]
BAD: dict[str, tuple[Any, str]] = {
    "another length": ([1.0, 2.0, 3.0], "has 3 numbers, those before it 2"),
    "not a number": ([math.nan, 1.0], "v[0]=nan is not a finite number"),
    "infinite": ([1.0, -math.inf], "v[1]=-inf is not a finite number"),
    "a hole": ([1.0, None], "v[1]=None is not a finite number"),
    "zeros": ([0.0, 0.0], "v is all zeros"),
    "empty": ([], "v must be a list of 1 to 65,536 numbers"),
    "none": (None, "v must be a list of 1 to 65,536 numbers, got None"),
    "a text": ("0.6 0.8", "v must be a list of 1 to"),
    "texts": (["x", "y"], "v must be a list of numbers"),
    "nested": ([[0.6], [0.8]], "v must be a list of numbers"),
    "too large": ([1.0, 10**400], "v must be a list of numbers"),
}


def read(tmp_path: Path, rows: list[dict[str, Any]]) -> list[tuple[str, Example | RowError]]:
    (tmp_path / "t").mkdir()
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (tmp_path / "t" / "train.jsonl").write_text(text)
    return list(
        read_examples(FolderSource(tmp_path).reader("t", "train"), TASK, Pictures(tmp_path), {})
    )


TASK = Task(FIELDS, prefix="<x>")


@pytest.mark.parametrize("name", BAD)
def test_a_bad_vector_is_a_bad_row(name: str, tmp_path: Path) -> None:
    value, words = BAD[name]
    good = {"a": "x", "b": "y", "v": VECTOR, "w": [3.0, -4e200]}
    first, second, third = (e for _, e in read(tmp_path, [good, {**good, "v": value}, good]))
    assert isinstance(second, RowError) and words in str(second), second
    assert str(second).startswith(f"{tmp_path}/t/train.jsonl, line 2: ")
    assert isinstance(first, Example) and first == third  # the rows beside it can be used
    assert first.teacher_query == pytest.approx((0.6, 0.8))
    assert first.teacher_document == pytest.approx((0.0, -1.0))  # squares do not overflow


def test_both_sides_are_of_one_teacher_and_columns_are_there(tmp_path: Path) -> None:
    rows = [{"a": "x", "b": "y", "v": VECTOR, "w": [1.0]}, {"a": "x", "b": "y", "v": VECTOR}]
    (_, other), (_, missing) = read(tmp_path, rows)
    assert isinstance(other, RowError) and "has 1 numbers, those before it 2" in str(other)
    assert isinstance(missing, RowError) and "no column 'w' for teacher_document" in str(missing)


def test_a_table_of_fixed_lists_is_read(tmp_path: Path) -> None:
    vectors = pa.FixedSizeListArray.from_arrays(pa.array([1.0, 0.0, 0.6, 0.8], pa.float32()), 2)
    (tmp_path / "t").mkdir()
    table = pa.table({"a": ["x", "y"], "b": ["z", "z"], "v": vectors})
    pq.write_table(table, tmp_path / "t" / "train.parquet")
    task = Task({k: v for k, v in FIELDS.items() if v != "w"}, prefix="<x>")
    found = read_examples(FolderSource(tmp_path).reader("t", "train"), task, Pictures(tmp_path), {})
    assert [e.teacher_query for _, e in found if isinstance(e, Example)] == [
        (1.0, 0.0),
        pytest.approx((0.6, 0.8)),
    ]


@pytest.mark.parametrize("sides", [("query",), ("document",), ("query", "document")])
def test_the_model_takes_over_the_teachers_similarities(sides: tuple[str, ...]) -> None:
    teacher = F.normalize(torch.randn(2, 10, 5), dim=-1)
    free = torch.randn(2, 10, 16).requires_grad_()  # other dimensions than the teacher's
    keys = torch.arange(20).view(2, 10)
    given = {f"teacher_{s}": t for s, t in zip(("query", "document"), teacher, strict=True)}
    given = {name: t for name, t in given.items() if name.removeprefix("teacher_") in sides}
    optimizer = torch.optim.Adam([free], lr=0.05)
    values = []
    for _ in range(300):
        query, document = F.normalize(free, dim=-1)
        loss = RelationalKLLoss(0.5)(Pairs(query, document, *keys, **given)).total
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        values.append(loss.item())
    assert values[0] > 0.1 and values[-1] < 1e-3
    chosen = [("query", "document").index(side) for side in sides]
    ours = F.normalize(free.detach(), dim=-1)[chosen].flatten(0, 1)
    theirs = teacher[chosen].flatten(0, 1)
    off = ~torch.eye(len(ours), dtype=torch.bool)
    both = torch.stack([(ours @ ours.T)[off], (theirs @ theirs.T)[off]])
    assert torch.corrcoef(both)[0, 1] > 0.98


def test_equal_vectors_and_equal_contents_cost_nothing() -> None:
    z = F.normalize(torch.randn(2, 6, 8), dim=-1)
    keys = torch.arange(12).view(2, 6)
    pairs = Pairs(*z, *keys, teacher_query=z[0], teacher_document=z[1])
    assert_close(RelationalKLLoss()(pairs).total, torch.zeros(()))
    away = pairs._replace(teacher_query=-z[0])
    assert RelationalKLLoss()(away).total > 0.1
    same = torch.zeros_like(keys)
    assert RelationalKLLoss()(away._replace(query_key=same[0], document_key=same[1])).total == 0
