"""Hard negatives: rules and search against slow equivalents, and the command on a trained run."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
from omegaconf import OmegaConf

from polyqwen.build.run import build
from polyqwen.build.trainer import build_trainer
from polyqwen.data.rows.types import Content
from polyqwen.inference.mining.corpus import Corpus
from polyqwen.inference.mining.mine import mine
from polyqwen.inference.mining.search import MinedRow, Rules, search
from polyqwen.inference.model import EmbeddingModel
from tests.conftest import ROOT, Configure
from tests.training.test_resume import SHORT


def unit(rows: int, size: int, seed: int) -> np.ndarray:
    x = np.random.default_rng(seed).normal(size=(rows, size)).astype(np.float32)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def corpus_of(folder: Path, vectors: np.ndarray) -> Corpus:
    corpus = Corpus(folder / "documents", vectors.shape[1])
    keys = list(range(100, 100 + len(vectors)))
    corpus.add(keys, [f"text {k}" for k in keys], corpus.new(keys), vectors)
    return corpus


@pytest.mark.parametrize(
    "rules",
    [
        Rules(3, margin=0.1),
        Rules(4, margin=None, relative_margin=0.2, skip=2, window=9),
        Rules(5, margin=None, max_cosine=0.3, window=40),
    ],
    ids=str,
)
@pytest.mark.parametrize("block", [1, 7, 100])
def test_search_equals_a_loop_over_everything(tmp_path: Path, rules: Rules, block: int) -> None:
    documents, queries = unit(40, 6, 0), unit(25, 6, 1)
    corpus = corpus_of(tmp_path, documents)
    draw = np.random.default_rng(2)
    rows = [
        MinedRow(int(draw.integers(90, 110)), int(draw.integers(40)), i % 5 > 0) for i in range(25)
    ]  # queries repeat, and some are documents themselves
    found = list(search(queries, corpus, rows, rules, block))
    assert sum(len(f.documents) for f in found) > 5
    for row, query, own in zip(rows, queries, found, strict=True):
        cosines = documents @ query
        positive = cosines[row.document]
        assert own.positive == pytest.approx(positive, abs=1e-6)
        barred = {r.document for r in rows if r.query == row.query} | {row.query - 100}
        order = [d for d in np.argsort(-cosines, kind="stable") if d not in barred]
        taken = []
        for d in order[rules.skip : rules.window]:
            limits = [cosines[d] <= rules.max_cosine]
            if rules.margin is not None:
                limits.append(cosines[d] < positive - rules.margin)
            if rules.relative_margin is not None:
                limits.append(cosines[d] < positive - abs(positive) * rules.relative_margin)
            if all(limits):
                taken.append(d)
        assert own.documents == (taken[: rules.negatives] if row.mined else [])


def test_the_margins_bound_is_left_out() -> None:
    documents = np.arange(3)
    cosines = np.array([0.75, 0.5, 0.25], np.float32)
    assert Rules(margin=0.25).taken(documents, cosines, 0.75) == ([2], [0.25])
    assert Rules(margin=None).taken(documents, cosines, 0.0)[0] == [0, 1, 2]
    relative = Rules(margin=None, relative_margin=0.5)
    assert relative.taken(documents, cosines, 1.0)[0] == [2]  # below 0.5
    assert relative.taken(documents, cosines, -0.2)[0] == []  # below -0.3


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"negatives": 0}, "--negatives must be at least 1"),
        ({"margin": -0.1}, "--margin must be >= 0"),
        ({"relative_margin": 1.5}, "--relative-margin"),
        ({"skip": 5, "window": 5}, "--skip must be >= 0 and below --window"),
        ({"min_score": 2.0}, "--min-score"),
    ],
)
def test_numbers_out_of_range_are_named(wrong: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Rules(**wrong).check()


def test_a_corpus_keeps_each_content_once(tmp_path: Path) -> None:
    corpus, vectors = Corpus(tmp_path / "d", 2), unit(3, 2, 0)
    assert corpus.new([5, 6, 5]) == [0, 1]
    assert corpus.add([5, 6, 5], ["ä\n1", "b", "ä\n1"], [0, 1], vectors[:2]) == [0, 1, 0]
    assert corpus.new([6, 7]) == [1]
    assert corpus.add([6, 7], ["b", "c"], [1], vectors[2:]) == [1, 2]
    assert [corpus.text(i) for i in range(3)] == ["ä\n1", "b", "c"]
    assert corpus.number(7) == 2 and corpus.number(8) is None
    for size in (1, 2, 5):
        blocks = [block for _, block in corpus.blocks(size)]
        assert np.array_equal(np.concatenate(blocks), vectors)


@pytest.fixture
def run(configure: Configure, tmp_path: Path) -> Path:
    """A short run with its checkpoint and configuration."""
    folder = tmp_path / "run"
    cfg = configure(*SHORT, f"run_dir={folder}", "weighting=static")
    (folder / "checkpoints").mkdir(parents=True)
    OmegaConf.save(cfg, folder / "config.yaml", resolve=True)
    pl.seed_everything(0, workers=True, verbose=False)
    data, model = build(cfg)
    trainer = build_trainer(cfg)
    trainer.fit(model, datamodule=data)
    trainer.save_checkpoint(folder / "checkpoints" / "last.ckpt")
    return folder


def records(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize("task", ["text_pair", "ocr"])
def test_a_mined_folder_is_trained_on(
    run: Path, folder: Path, configure: Configure, tmp_path: Path, task: str
) -> None:
    rules = Rules(2, margin=0.02)
    report = mine(run, task, tmp_path / "mined", rules, block=16)
    before = records(folder / task / "train.jsonl")
    after = records(tmp_path / "mined" / task / "train.jsonl")
    assert [{k: v for k, v in r.items() if k != "negatives"} for r in after] == [
        {k: v for k, v in r.items() if k != "negatives"} for r in before
    ]
    column = "text_b" if task == "text_pair" else "text"
    model = EmbeddingModel.load(run)
    given = 0
    for row in after:
        texts = row["negatives"]
        if task == "text_pair" and row["score"] < rules.min_score:
            assert texts == []
            continue
        query = row["text_a"] if task == "text_pair" else {"image": folder / row["image"]}
        q, p, *rest = (model.encode(x, task=task) for x in [query, row[column], *texts])
        assert row[column] not in texts and len(texts) == len(set(texts)) <= 2
        assert all(q @ n < q @ p - rules.margin + 1e-5 for n in rest)
        given += len(texts)
    assert given == report["negatives"] > 10
    assert report["rows_with_negatives"] <= report["rows"]
    for other in ("dev.jsonl", "test.jsonl"):
        link = tmp_path / "mined" / task / other
        assert not link.is_symlink() and link.read_bytes() == (folder / task / other).read_bytes()

    parts = build(configure(f"data.root={tmp_path / 'mined'}"))
    table = parts.data.splits.table(task, "train")
    assert sum(len(row) for row in table["negatives"]) == given
    keys = {negative["key"] for row in table["negatives"] for negative in row}
    assert keys <= {Content(row[column]).key for row in before}


def test_what_cannot_be_mined_is_refused_and_nothing_is_left(run: Path, tmp_path: Path) -> None:
    there = tmp_path / "there"
    there.mkdir()
    for task, to, words in (
        ("nothing", tmp_path / "new", "the run's tasks are text_pair, ocr"),
        ("ocr", there, "is there already"),
    ):
        with pytest.raises(ValueError, match=words):
            mine(run, task, to, Rules())
    with pytest.raises(ValueError, match="not the folder of a run"):
        mine(tmp_path, "ocr", tmp_path / "new", Rules())
    assert not (tmp_path / "new").exists() and not list(tmp_path.glob(".new*"))


def test_the_command(run: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "polyqwen", "mine", str(run), "--task", "ocr"]
    to = ["--to", str(tmp_path / "mined"), "--relative-margin", "0.05"]
    done = subprocess.run([*command, *to], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "rows have hard negatives" in done.stdout
    assert f"train on it with data.root={tmp_path / 'mined'}" in done.stdout
    report = json.loads((tmp_path / "mined" / "ocr" / "mining.json").read_text(encoding="utf-8"))
    assert report["rules"]["margin"] is None and report["rules"]["relative_margin"] == 0.05
    again = subprocess.run([*command, *to], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (
        again.returncode == 1 and again.stderr.startswith("error: ") and "already" in again.stderr
    )
