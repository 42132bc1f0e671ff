"""Hard negatives for a task's training rows: documents that a trained model takes for right."""

import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from polyqwen.atomic_files import write_json
from polyqwen.build.instantiate import make
from polyqwen.config.check import load_saved_config, resolved
from polyqwen.config.nodes import check_nodes
from polyqwen.data.rows.bad_rows import refused
from polyqwen.data.rows.task import Task
from polyqwen.data.rows.types import Content, Reader
from polyqwen.inference.load import run_parts
from polyqwen.inference.mining.corpus import Corpus
from polyqwen.inference.mining.search import Found, MinedRow, Rules, search
from polyqwen.inference.model import EmbeddingModel

COLUMN = "negatives"
REPORT = "mining.json"


def mine(
    run: Path, task: str, to: Path, rules: Rules, *, checkpoint: str = "last", block: int = 1024
) -> dict[str, Any]:
    """Writes a data folder like the run's, whose training rows of a task have hard negatives.

    The run's model embeds the task's queries and distinct documents; every query takes the nearest
    documents that `Rules` let through. Rows keep their columns; other splits, tasks and pictures
    are hard links to the files that are there, or copies where there can be none. Memory holds two
    blocks of vectors and three numbers a row; vectors lie in files. As sentence-transformers'
    ``mine_hard_negatives``; de Souza Moreira et al. 2024, arXiv 2407.15831.

    Args:
        run: folder of a run.
        task: with texts as documents.
        to: folder to write; must not exist.
        rules: which candidates are taken.
        checkpoint: ``last``, ``best`` or a path.
        block: queries and documents compared at a time, >= 1.

    Returns:
        What is written to ``mining.json``.

    Raises:
        ValueError: the task is none of the run's or its documents are pictures, the folder is
            there, the data are no folder, or a number is out of range.
    """
    if block < 1:
        raise ValueError(f"--block must be at least 1, got {block}")
    if to.exists():
        raise ValueError(f"--to {to} is there already; name a new folder")
    data, made, reader = _source(run, task)
    name = made.folder or task  # of the task's folder
    model = EmbeddingModel(**run_parts(run, checkpoint))
    to.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=to.parent, prefix=f".{to.name}-") as folder:
        work = Path(folder)
        corpus = Corpus(work / "documents", model.dimension)
        rows, queries = _embedded(model, reader, made, task, data, corpus, rules, work, block)
        found = search(queries, corpus, rows, rules, block)
        whole = work / "whole"
        report = _write(whole / name / "train.jsonl", reader, made, found, corpus)
        report |= {
            "task": task,
            "run": str(run),
            "checkpoint": checkpoint,
            "rules": rules._asdict(),
        }
        _link(data, whole, name)
        write_json(whole / name / REPORT, report)
        os.replace(whole, to)
    return report


def _source(run: Path, task: str) -> tuple[Path, Task, Reader]:
    """The run's data folder, the task and the reader of its training rows."""
    path = run / "config.yaml"
    cfg = load_saved_config(path) if path.is_file() else None
    if cfg is None or "tasks" not in cfg:
        raise ValueError(f"{run} is not the folder of a run: it has no config.yaml")
    if task not in cfg.tasks:
        raise ValueError(f"--task {task}: the run's tasks are {', '.join(map(str, cfg.tasks))}")
    values = resolved(cfg)
    check_nodes({"tasks": values["tasks"], "data": {"source": values["data"]["source"]}})
    made = make(cfg.tasks[task])
    if "document_image" in made.fields or "labels" in made.fields:
        raise ValueError(f"--task {task}: negatives are texts, but its documents are not")
    source = make(cfg.data.source)
    reader = source.reader(made.folder or task, "train")
    if not str(source.root) or source.root == Path():
        raise ValueError("mining writes a folder like the run's, but its data are on the hub")
    return Path(values["data"].get("root") or source.root), made, reader


def _embedded(
    model: EmbeddingModel,
    reader: Reader,
    made: Task,
    task: str,
    data: Path,
    corpus: Corpus,
    rules: Rules,
    work: Path,
    block: int,
) -> tuple[list[MinedRow], NDArray[np.float32]]:
    """Vectors of queries, on disk (N, D), and those of distinct documents in the corpus."""
    rows: list[MinedRow] = []
    path = work / "queries"
    with path.open("wb") as file:
        stream = refused(reader)
        while part := list(islice(stream, block)):
            examples = [made.example(record, where) for where, record in part]
            texts = [e.positive.text for e in examples if e.positive is not None]
            keys = [e.positive.key for e in examples if e.positive is not None]
            new = corpus.new(keys)
            vectors = model.encode([texts[i] for i in new], task=task) if new else None
            numbers = corpus.add(keys, texts, new, vectors)
            queries = model.encode([_input(e.query, data) for e in examples], task=task)
            file.write(np.ascontiguousarray(queries, dtype=np.float32).tobytes())
            rows += [
                MinedRow(e.query.key, number, e.score is None or e.score >= rules.min_score)
                for e, number in zip(examples, numbers, strict=True)
            ]
    if not rows:
        raise ValueError(f"{reader} has no rows")
    return rows, np.memmap(path, np.float32, "r", shape=(len(rows), model.dimension))


def _input(content: Content, data: Path) -> dict[str, Any]:
    shown = {"image": data / content.image} if content.image else {}
    return {"text": content.text, **shown}


def _write(
    path: Path, reader: Reader, made: Task, found: Iterable[Found], corpus: Corpus
) -> dict[str, Any]:
    """The rows with their negatives; counts and means for the report."""
    path.parent.mkdir(parents=True)
    column = made.fields.get(COLUMN, COLUMN)
    counts: list[int] = []
    positive, negative = [], []
    with path.open("w", encoding="utf-8") as file:
        for (where, record), own in zip(refused(reader), found, strict=True):
            texts = [corpus.text(number) for number in own.documents]
            given = list(record.get(column) or [])
            row = {**record, column: [*given, *(text for text in texts if text not in given)]}
            try:
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
            except TypeError as error:
                raise ValueError(f"{where} cannot be written as JSON: {error}") from error
            if own.mined:
                counts.append(len(texts))
                positive.append(own.positive)
                negative += own.cosines
    return {
        "rows": len(counts),
        "rows_with_negatives": sum(count > 0 for count in counts),
        "negatives": sum(counts),
        "negatives_per_row": float(np.mean(counts)) if counts else 0.0,
        "mean_cosine_of_positives": float(np.mean(positive)) if positive else None,
        "mean_cosine_of_negatives": float(np.mean(negative)) if negative else None,
        "distinct_documents": len(corpus),
    }


def _link(data: Path, to: Path, task: str) -> None:
    """Everything else of the data folder: hard links, since pictures may not lead out of a root."""
    for entry in _entries(data):
        if entry.name != task:
            _bring(entry, to / entry.name)
    for entry in _entries(data / task):
        if entry.stem != "train" and entry.name != REPORT:
            _bring(entry, to / task / entry.name)


def _entries(folder: Path) -> Iterator[Path]:
    return (p for p in sorted(folder.iterdir()) if not p.name.startswith("."))


def _bring(source: Path, to: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, to, copy_function=_link_or_copy)
    else:
        _link_or_copy(source, to)


def _link_or_copy(source: str | Path, to: str | Path) -> None:
    """A hard link, or a copy where the file system has none between the two."""
    try:
        os.link(os.path.realpath(source), to)
    except OSError:
        shutil.copy2(source, to)
