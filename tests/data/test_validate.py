"""The look through a data set: every count by hand, the exit codes, and what would stop a run."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from polyqwen.app.commands.validate import validate
from polyqwen.data.validation.counts import Classes, Keys, Lengths, Scores
from tests.conftest import ROOT
from tests.data.hostile import contained

PAIR = {"text_a": "a cat", "text_b": "a dog", "score": 0.25, "lang": "en"}


def write(root: Path, task: str, **splits: list[Any]) -> None:
    (root / task).mkdir(parents=True, exist_ok=True)
    for split, rows in splits.items():
        lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
        (root / task / f"{split}.jsonl").write_text("\n".join(lines), encoding="utf-8")


def pairs(start: int, count: int) -> list[dict[str, Any]]:
    numbers = range(start, start + count)
    return [{**PAIR, "text_a": f"cat {i}", "score": i % 10 / 10} for i in numbers]


def look(root: Path, *overrides: str) -> tuple[int, dict[str, Any]]:
    """Exit code and report."""
    report = root.parent / "report.json"
    code = validate([f"data.root={root}", "curriculum=single_phase", *overrides], report)
    return code, json.loads(report.read_text(encoding="utf-8"))


def told(report: dict[str, Any], level: str) -> str:
    lines = [f for f in report["findings"] if f["level"] == level]
    return "\n".join(f"{f['task']} {f['split']}: {f['what']}" for f in lines)


def test_a_good_data_set_passes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "data"
    write(root, "text_pair", train=pairs(0, 30), dev=pairs(30, 10), test=pairs(40, 10))
    code, report = look(root, "task=[text_pair]")
    assert code == 0 and report["findings"] == [] and report["verdict"] == "A run could start"
    train = report["tasks"]["text_pair"]["train"]
    assert train["rows"] == 30 and train["bad"] == {}
    assert train["scores"] == {"least": 0.0, "most": 0.9, "tenths": [3] * 10}
    assert "A run could start" in capsys.readouterr().out


def test_every_fault_is_counted_and_placed(tmp_path: Path) -> None:
    root = tmp_path / "data"
    bad = ["{", '{"text_a": 1, "text_a": 2}', {**PAIR, "score": 7}, {**PAIR, "text_b": ""}]
    long = {**PAIR, "text_a": "word " * 500}
    train = [*pairs(0, 20), *bad, {**PAIR, "score": 9}, pairs(3, 1)[0], long]
    dev = [*pairs(5, 2), *pairs(40, 8), {**PAIR, "text_a": "<|image_pad|>"}]
    write(root, "text_pair", train=train, dev=dev, test=pairs(90, 5))
    code, report = look(root, "task=[text_pair]")
    assert code == 1 and report["verdict"].startswith("A run would stop")
    seen = report["tasks"]["text_pair"]["train"]
    counts = {kind: fault["count"] for kind, fault in seen["bad"].items()}
    assert counts == {"score outside [0, 1]": 2, "not JSON": 1, "double key": 1, "empty": 1}
    first = seen["bad"]["score outside [0, 1]"]["first"][0]
    assert first["where"].endswith("train.jsonl, line 23") and first["field"] == "score"
    assert seen["tokens"]["query"]["cut_share"] == pytest.approx(1 / 22)
    assert sum(seen["tokens"]["query"]["histogram"].values()) == 22
    stops, warnings = told(report, "stops"), told(report, "warning")
    assert "text_pair train: 5 of 27 rows are bad" in stops and "line 21: not JSON" in stops
    assert "rows that stood there before: 1 (train row 26 = train row 4)" in warnings
    assert "train/dev: rows of dev that are in train too" in warnings
    assert "alike: 2 (dev row 1 = train row 6; dev row 2 = train row 7)" in warnings
    assert "spell out a special token and stay plain text: 1" in told(report, "note")
    code, report = look(root, "task=[text_pair]", "data.bad_rows=skip", "data.max_bad_share=0.2")
    assert code == 0 and "5 of 27 rows are bad; left out" in told(report, "warning")
    code, report = look(
        root, "task=[text_pair]", "data.bad_rows=skip", f"data.max_bad_share={5 / 27}"
    )
    assert code == 0 and "5 of 27 rows are bad; left out" in told(report, "warning")
    code, report = look(root, "task=[text_pair]", "data.bad_rows=skip")
    assert code == 1 and "18.5%, more than data.max_bad_share=0.01" in told(report, "stops")


def test_a_split_of_bad_rows_only_would_stop_a_run(tmp_path: Path) -> None:
    root = tmp_path / "data"
    write(root, "text_pair", train=pairs(0, 20), dev=["{", {**PAIR, "score": 7}], test=pairs(30, 5))
    code, report = look(root, "task=[text_pair]", "data.bad_rows=skip", "data.max_bad_share=1")
    assert code == 1 and "text_pair dev: no rows that can be used" in told(report, "stops")


def test_pictures_are_decoded_and_compared_by_their_bytes(tmp_path: Path) -> None:
    root = tmp_path / "data"
    root.mkdir()
    for i in range(4):
        Image.effect_noise((64, 48), 30 + i).convert("RGB").save(root / f"{i}.jpg")
    shutil.copy(root / "0.jpg", root / "copy.jpg")
    whole = (root / "3.jpg").read_bytes()
    (root / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    names = {"train": ["0.jpg", "1.jpg", "cut.jpg", "no.jpg", "../x.jpg"]}
    names |= {"dev": ["copy.jpg", "2.jpg"], "test": ["3.jpg", "3.jpg"]}
    rows = {
        split: [{"image": name, "text": f"{i}" if split == "train" else "same"} for i, name in own]
        for split, own in ((split, list(enumerate(own))) for split, own in names.items())
    }
    write(root, "ocr", **rows)
    code, report = look(root, "task=[ocr]")
    assert code == 1
    bad = report["tasks"]["ocr"]["train"]["bad"]
    assert {kind: fault["count"] for kind, fault in bad.items()} == {
        "picture damaged": 1,
        "picture missing": 1,
        "picture outside": 1,
    }
    assert report["tasks"]["ocr"]["test"]["pictures"] == 1
    note = "rows of dev with a picture that train shows too: 1 (dev row 1 = train row 1)"
    assert note in told(report, "note") and "alike" not in told(report, "warning")
    assert "test: rows that stood there before: 1" in told(report, "warning")


def test_what_would_stop_a_run_besides_rows(tmp_path: Path) -> None:
    root = tmp_path / "data"
    write(root, "text_pair", train=pairs(0, 9), dev=[])
    write(root, "text_labels", train=[{"text": "a", "labels": {"topic": "x"}}] * 2)
    (root / "text_pair" / "test.parquet").write_bytes(b"PAR1 no table")
    code, report = look(root, "task=[text_pair,sentiment]")
    stops = told(report, "stops")
    assert code == 1
    assert "text_pair dev: no rows" in stops and "not a readable Parquet file" in stops
    assert "sentiment dev: task text_labels has no dev split" in stops
    assert "sentiment train: no row has the label 'sentiment'" in stops


def test_tasks_that_share_rows_are_looked_at_once(folder: Path, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    overrides = [f"data.root={folder}", "curriculum=single_phase"]
    assert validate([*overrides, "task=[sentiment,text_unlabelled,ocr]"], report) == 0
    tasks = json.loads(report.read_text())["tasks"]
    assert list(tasks) == ["sentiment, text_unlabelled", "ocr"]
    rows = (folder / "text_labels" / "train.jsonl").read_text().splitlines()
    wanted = [json.loads(row)["labels"].get("sentiment") for row in rows]
    seen = tasks["sentiment, text_unlabelled"]["train"]["labels"]["sentiment"]
    assert seen == {name: wanted.count(name) for name in set(wanted) - {None}} and len(seen) > 1
    assert tasks["ocr"]["train"]["rows"] == 64 and tasks["ocr"]["train"]["pictures"] > 0


def test_the_command_ends_as_it_should(tmp_path: Path) -> None:
    root = tmp_path / "data"
    write(root, "text_pair", train=pairs(0, 9), dev=pairs(9, 3), test=[*pairs(20, 3), "{"])

    command = [sys.executable, "-m", "polyqwen", "validate", f"data.root={root}"]
    command += ["task=[text_pair]", f"--report={tmp_path}/r/report.json"]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == 1 and "line 4: not JSON" in ended.stdout, ended.stderr
    assert (tmp_path / "r" / "report.json").is_file() and "Traceback" not in ended.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["data.rot=x"], "'root'"),
        ([], "data.root: has no value"),
        (["task=[x]", "data.root=."], "task=x"),
        (["data.root=/nowhere"], "not a folder"),
        (["data.root=.", "data.bad_rows=drop"], "data.bad_rows"),
    ],
)
def test_mistakes_are_one_line(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert validate(arguments) == 2
    ended = capsys.readouterr()
    assert ended.out == "" and ended.err.count("\n") == 1
    assert ended.err.startswith("error: ") and words in ended.err


def test_counts_do_not_grow_with_the_rows() -> None:
    def work() -> list[int]:
        keys, lengths, scores, classes = Keys(), Lengths(8), Scores(), Classes()
        for i in range(200_000):
            keys.add(i * 2**40 % 2**64, i + 1)
            scores.add(i / 200_000)
            classes.add("label", str(i))
        lengths.add([3, 8, 9, 200])
        assert lengths.cut == 0.5 and lengths.quantile(0.5) == 8 and scores.tenths.sum() == 200_000
        assert len(classes.counts) == 1001 and classes.counts["label", "…"] == 199_000
        again = keys.repeated()  # 2^40 · i repeats after 2^24, which is never reached
        return [len(keys), keys.distinct, again.rows, keys.also_in(keys).rows]

    assert contained(work, seconds=60, megabytes=120) == [200_000, 200_000, 0, 200_000]


def test_places_of_repeated_contents() -> None:
    first, second = Keys(), Keys()
    for row, key in enumerate([5, 2**63 + 1, 5, 7, 5], start=1):
        first.add(key, row)
    for row, key in enumerate([9, 7, 2**63 + 1], start=1):
        second.add(key, row)
    assert first.repeated() == (2, [(3, 1), (5, 1)])
    assert second.also_in(first) == (2, [(2, 4), (3, 2)])
    assert Keys().repeated() == (0, []) and Keys().also_in(first) == (0, [])
