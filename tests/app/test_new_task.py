"""`new-task` writes a task that composes and trains; the examples are such tasks."""

import importlib
import json
import random
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from polyqwen.app.commands.new_task import KINDS, new_task, task_kind
from tests.config.test_bad_input import Ended, assert_refused, forked
from tests.conftest import ROOT

SHORT = [
    *("curriculum.total_steps=2", "validate_every=1", "data.batch_size=4", "baseline=false"),
    *("callbacks.projector=null", "callbacks.galleries=null", "callbacks.progress=null"),
]
EXAMPLES = {
    "text_pairs": ("experiment=own_data", "task=[faq]"),
    "documents": ("experiment=documents",),
    "sentences": ("experiment=own_data", "task=[mood]", "model=tiny_text"),
}


def trained(conf: Path, root: Path, tmp_path: Path, *arguments: str) -> Ended:
    own = [f"--config-dir={conf}", *arguments, f"data.root={root}", f"data_cache={tmp_path}/cache"]
    return forked("train.py", [*own, *SHORT, f"hydra.run.dir={tmp_path}/run"], tmp_path)


def write_rows(folder: Path, kind: str, columns: dict[str, str]) -> None:
    """Eight rows a split, in columns of any name."""
    from PIL import Image

    values: dict[str, Any] = {
        "score": lambda i: i / 8,
        "labels": lambda i: "yes" if i % 2 else "no",
        "query_image": lambda i: f"{i}.png",
        "negatives": lambda i: [f"not {i}"],
    }
    folder.mkdir(parents=True)
    for split in ("train", "dev", "test"):
        rows = [
            {column: values.get(field, f"{split} {field} {{}}".format)(i)
             for field, column in columns.items()}
            for i in range(8)
        ]  # fmt: skip
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{split}.jsonl").write_text(text, encoding="utf-8")
    for i in range(8):
        Image.new("RGB", (40, 28), (i * 20, 90, 0)).save(folder.parent / f"{i}.png")


@pytest.mark.parametrize("kind", KINDS)
def test_a_task_of_each_kind_trains(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    columns = {field: f"my {field}" for field in task_kind(kind).fields}
    fields = [f"{field}={column}" for field, column in columns.items()]
    classes = ["yes", "no"] if kind == "labels" else []
    path = new_task("mine", kind, fields, classes, tmp_path / "conf")
    said = capsys.readouterr().out
    assert str(path) in said and "train.py --config-dir" in said and "'task=[mine]'" in said
    written = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert written["tasks"]["mine"]["fields"] == columns
    assert written["tasks"]["mine"].get("classes", []) == classes  # texts, not booleans
    write_rows(tmp_path / "data" / "mine", kind, columns)
    own = ("experiment=own_data", "task=[mine]")
    ended = trained(tmp_path / "conf", tmp_path / "data", tmp_path, *own)
    assert ended.code == 0, (ended.out + ended.err)[-3000:]
    assert set(json.loads((tmp_path / "run" / "results.json").read_text())["trained"]) == {"mine"}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("My Task", "pairs", [], []), "small letters"),
        (("ocr", "ocr", [], []), "ocr.yaml is there already"),
        (("mine", "ocr", ["text=words"], []), "query_image, document_text"),
        (("mine", "ocr", ["document_text"], []), "FIELD=COLUMN"),
        (("mine", "labels", [], ["good"]), "at least 2"),
        (("mine", "labels", [], ["good", "good"]), "at least 2"),
        (("mine", "pairs", [], ["good", "bad"]), "only --kind labels"),
    ],
)
def test_what_is_refused(arguments: tuple[Any, ...], words: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=words):
        new_task(*arguments, tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_task_of_the_folder_is_not_overwritten(tmp_path: Path) -> None:
    path = new_task("mine", "pairs", [], [], tmp_path)
    before = path.read_text(encoding="utf-8")
    with pytest.raises(ValueError, match="is there already"):
        new_task("mine", "ocr", [], [], tmp_path)
    assert path.read_text(encoding="utf-8") == before


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_examples_train(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [str(ROOT), *sys.path])
    draw = getattr(importlib.import_module("examples.make_data"), name)
    draw(tmp_path / "data", random.Random(0))
    conf = ROOT / "examples" / name / "conf"
    ended = trained(conf, tmp_path / "data", tmp_path, *EXAMPLES[name])
    assert ended.code == 0, (ended.out + ended.err)[-3000:]
    tasks = {path.stem for path in (conf / "task").glob("*.yaml")}
    assert set(json.loads((tmp_path / "run" / "results.json").read_text())["trained"]) == tasks


@pytest.mark.parametrize("name", ["keys", "items", "type", "train", "training"])
def test_names_that_torch_keeps_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"cannot be called '{name}'.*{name}_task"):
        new_task(name, "pairs", [], [], tmp_path)
    assert not list(tmp_path.rglob("*.yaml"))


def test_such_a_name_in_a_file_is_refused_in_one_line(tmp_path: Path) -> None:
    write_rows(tmp_path / "data" / "keys", "pairs", task_kind("pairs").fields)
    new_task("other", "pairs", [], [], tmp_path / "conf")
    written = tmp_path / "conf" / "task" / "other.yaml"
    text = written.read_text(encoding="utf-8").replace("other", "keys")
    written.with_name("keys.yaml").write_text(text, encoding="utf-8")
    own = ["experiment=own_data", "task=[keys]"]
    ended = trained(tmp_path / "conf", tmp_path / "data", tmp_path, *own)
    assert_refused(ended, ("cannot be called 'keys'", "keys_task"))
