"""Whole runs as a user starts them: real processes, a small data set, the files they leave."""

import json
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from polyqwen.app.report_after_sweep import write_sweep_page
from tests.conftest import REAL, ROOT

SMALL = [
    "total_steps=6",
    "phase1_steps=3",
    "validate_every=3",
    "data.rows_per_task=4",
    "data.batch_size=null",
    "weighting.eval_steps=2",
    "callbacks.step_log.every=1",
]


def run(script: str, *arguments: str, ok: bool = True) -> str:
    result = subprocess.run(
        [sys.executable, str(ROOT / script), *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    text = result.stdout + result.stderr
    assert (result.returncode == 0) is ok, text[-3000:]
    return text


def train(
    folder: Path, cache: Path, out: Path, *arguments: str, small: Sequence[str] = SMALL
) -> str:
    data = ["data=folder", f"data.root={folder}", f"data_cache={cache}"]
    return run("train.py", *data, *small, f"hydra.run.dir={out}", *arguments)


@pytest.fixture(scope="module")
def trained(
    folder: Path, cache: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, str]:
    """One finished run: its folder and what it printed."""
    out = tmp_path_factory.mktemp("run") / "a"
    return out, train(folder, cache, out)


def test_a_run_leaves_results_checkpoints_and_logs(trained: tuple[Path, str]) -> None:
    out, text = trained
    results = json.loads((out / "results.json").read_text())
    assert set(results) == {"trained", "untrained", "chance", "forgetting", "timing"}
    assert results["timing"]["steps"] == 6
    assert 0 < 6 * results["timing"]["seconds_per_step"] < 3 * results["timing"]["fit_seconds"]
    assert results["forgetting"]["task"] == "text_pair"
    assert set(results["untrained"]) == {"text_pair", "ocr", "vqa_single", "vqa_multi"}
    assert "ocr/shuffled_pictures" in results["trained"]
    assert 0 < results["chance"]["ocr"]["recall@1"] < 0.1
    names = {p.name for p in (out / "checkpoints").glob("*.ckpt")}
    assert names == {"last.ckpt", "last-3.ckpt", "last-6.ckpt", "best.ckpt"}
    assert list(out.glob("events.out.tfevents.*")) and (out / "csv" / "metrics.csv").is_file()
    assert (out / "config.yaml").is_file()
    plan = json.loads((out / "plan.json").read_text())
    assert [phase["stop"] for phase in plan["phases"]] == [3, 6]
    assert [task["train"] for task in plan["tasks"]] == [64] * 4
    assert text.index("plan of main") < text.index("task weights, step 2")
    for word in (
        "training data",
        "plan of main: steps 6",
        "untrained",
        "chance",
        "task weights, step 2",
        f"run: {out}",
    ):
        assert word in text


def test_evaluate_repeats_the_runs_own_numbers(trained: tuple[Path, str]) -> None:
    out, _ = trained
    text = run("evaluate.py", f"run_dir={out}", "ablations=[shuffled_pictures]")
    report = json.loads((out / "evaluation" / "metrics.json").read_text())
    before = json.loads((out / "results.json").read_text())
    for kind in ("trained", "untrained", "chance"):
        for view, metrics in before[kind].items():
            for name in ("recall@1", "mrr", "gap"):
                if name in metrics:
                    assert report[kind][view][name] == pytest.approx(metrics[name], abs=2e-5)
    assert {
        "similarity_ocr.png",
        "gallery_ocr.png",
        "gallery_ocr_hardest.png",
        "weights.png",
        "losses.png",
    } <= {p.name for p in (out / "evaluation").iterdir()}
    assert "lang=en" in report["groups"]["text_pair"] and "per language and source" in text


def test_evaluate_reads_another_folder_of_the_same_layout(
    trained: tuple[Path, str], folder: Path
) -> None:
    out, _ = trained
    run("evaluate.py", f"run_dir={out}", f"data.root={folder}", "split=dev", "out=other")
    report = json.loads((out / "other" / "metrics.json").read_text())
    assert report["split"] == "dev" and report["trained"]["ocr"]["pool"] > 0


def test_phase_two_takes_over_phase_one(folder: Path, cache: Path, tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    own = SMALL[1:]  # its length is that of the phase
    train(folder, cache, one, "experiment=phase1", "baseline=false", small=own)
    text = train(
        folder,
        cache,
        two,
        "experiment=phase2",
        f"init_from={one}/checkpoints/last.ckpt",
    )
    first = json.loads((one / "results.json").read_text())["trained"]["text_pair"]["gap"]
    start = json.loads((two / "results.json").read_text())["untrained"]["text_pair"]["gap"]
    assert start == pytest.approx(first, abs=1e-6)  # phase 2 starts where phase 1 ended
    assert re.search(r"task weights, step 6", text)


def test_label_tasks_train_and_evaluate(folder: Path, cache: Path, tmp_path: Path) -> None:
    """Five label tasks, a pair task and unlabelled texts, from training to evaluation."""
    out = tmp_path / "a"
    options = ["experiment=text_multitask", "model=tiny_text"]
    tasks = "task=[text_pair,sentiment,topic,sentiment5,question_type,intent,text_unlabelled]"
    text = train(folder, cache, out, *options, tasks, "data/sampling=by_size")
    assert "LOC" in text and "macro" not in text  # classes in the table of the data
    before = json.loads((out / "results.json").read_text())
    for task in ("sentiment", "intent"):
        assert set(before["chance"][task]) == {"loss", "accuracy", "macro_f1"}
        assert set(before["trained"][task]) >= {"loss", "accuracy", "macro_f1"}
        assert 0.0 < before["trained"][task]["macro_f1"] <= 1.0
    assert set(before["trained"]["text_unlabelled"]) == {"rows", "uniformity", "effective_rank"}
    text = run("evaluate.py", f"run_dir={out}")
    report = json.loads((out / "evaluation" / "metrics.json").read_text())
    for task, metrics in before["trained"].items():
        for name, value in metrics.items():
            assert report["trained"][task][name] == pytest.approx(value, abs=2e-5), (task, name)
    assert report["advantage_over_untrained"]["intent"]["metric"] == "accuracy"
    assert "topic" in report["groups"] and "gallery_intent.png" not in text


def test_a_sweep_makes_one_run_per_value(folder: Path, cache: Path, tmp_path: Path) -> None:
    text = run(
        "train.py",
        "-m",
        "weighting.alpha.text_pair=0.2,0.27",
        "data=folder",
        f"data.root={folder}",
        f"data_cache={cache}",
        *SMALL,
        "baseline=false",
        "ablations=[]",
        f"hydra.sweep.dir={tmp_path}",
    )
    assert [(tmp_path / job / "results.json").is_file() for job in ("0", "1")] == [True, True]
    configs = [(tmp_path / job / "config.yaml").read_text() for job in ("0", "1")]
    assert "text_pair: 0.2\n" in configs[0] and "text_pair: 0.27\n" in configs[1]
    assert f"page of the sweep: {tmp_path}/report.html" in text.splitlines()
    page = (tmp_path / "report.html").read_text()
    assert ">alpha.text_pair=0.2<" in page and ">alpha.text_pair=0.27<" in page


def test_a_sweep_that_a_run_ended_leaves_the_page_of_the_others(
    folder: Path, cache: Path, tmp_path: Path
) -> None:
    data = ["data=folder", f"data.root={folder}", f"data_cache={cache}"]
    own = ["init_from=null,/nowhere.ckpt", "baseline=false", "ablations=[]"]
    text = run("train.py", "-m", *own, *data, *SMALL, f"hydra.sweep.dir={tmp_path}", ok=False)
    assert "there is no checkpoint /nowhere.ckpt" in text
    page = (tmp_path / "report.html").read_text()
    assert "1 variants, 1 finished runs" in page and "have not begun" in page


def test_a_page_that_cannot_be_written_is_a_line(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    write_sweep_page(tmp_path)
    assert capfd.readouterr() == ("", "")  # no run finished: there is nothing to be said
    (tmp_path / "0").mkdir()
    (tmp_path / "0" / "results.json").write_text("{}")
    write_sweep_page(tmp_path)
    said = capfd.readouterr()
    assert said.out == "" and said.err.count("\n") == 1
    assert "no report.html of the sweep was written: ValueError: " in said.err


@pytest.mark.parametrize(
    ("script", "arguments", "message"),
    [
        ("train.py", ["data=folder", "data.root=/nowhere"], "data.root=/nowhere is not a folder"),
        ("train.py", ["weighting.alfa=1"], "alfa"),
        ("train.py", ["init_from=/nowhere.ckpt"], "there is no checkpoint /nowhere.ckpt"),
        ("evaluate.py", ["run_dir=/x", "galleries=[nicest]"], "galleries may name spread, hardest"),
        ("evaluate.py", ["run_dir=/nowhere"], "is not the folder of a run"),
    ],
)
def test_mistakes_are_answered(
    script: str, arguments: list[str], message: str, cache: Path, tmp_path: Path
) -> None:
    own = [f"data_cache={cache}", f"hydra.run.dir={tmp_path}"] if script == "train.py" else []
    assert message in run(script, *own, *arguments, ok=False)


@pytest.mark.slow
@pytest.mark.skipif(not REAL.is_dir(), reason="the real data set is not here")
def test_real_files_train(cache: Path, tmp_path: Path) -> None:
    arguments = ["experiment=real", f"data.root={REAL}", f"data_cache={cache}", *SMALL]
    run("train.py", *arguments, "baseline=false", "ablations=[]", f"hydra.run.dir={tmp_path}")
    results = json.loads((tmp_path / "results.json").read_text())["trained"]
    assert results["ocr"]["pool"] > 400 and results["text_pair"]["queries"] > 100
