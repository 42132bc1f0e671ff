"""Whatever a user gets wrong: one line that says what, where and what else, and an exit code."""

import json
import os
import runpy
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
import torch

from polyqwen.atomic_files import TEMPORARY
from tests.conftest import ROOT

SHORT = ["curriculum.total_steps=2", "curriculum.switch_step=1", "validate_every=1"]


class Ended(NamedTuple):
    """How a script ended."""

    code: int
    out: str
    err: str


def forked(script: str, arguments: list[str], folder: Path, seconds: int = 300) -> Ended:
    """Runs a root script in a forked process: with its own state, without the imports' seconds."""
    out, err = folder / "stdout", folder / "stderr"
    child = os.fork()
    if child == 0:
        code = 1
        signal.alarm(seconds)  # a mistake that nobody refuses would train to the end
        try:
            for number, path in ((1, out), (2, err)):
                os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
            sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
            sys.argv = [script, *arguments]
            os.environ.pop("HYDRA_FULL_ERROR", None)
            runpy.run_path(str(ROOT / script), run_name="__main__")
            code = 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return Ended(code, out.read_text(), err.read_text())


def assert_refused(ended: Ended, words: tuple[str, ...], code: int | None = None) -> None:
    assert ended.code != -signal.SIGALRM, "not refused: it was still running"
    everything = ended.out + ended.err
    lines = [line for line in ended.err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1 and "Traceback" not in everything, everything[-3000:]
    assert "Error executing job" not in everything and "HYDRA_FULL_ERROR" not in everything
    assert ended.code == code if code is not None else ended.code != 0
    missing = [word for word in words if word not in lines[0]]
    assert not missing, (missing, lines[0])


CONFIG: dict[str, tuple[str, tuple[str, ...]]] = {
    "misspelt key": ("weighting.alfa=1", ("weighting.alfa", "unknown key", "'alpha'")),
    "misspelt top-level key": ("sed=1", ("sed", "unknown key", "'seed'")),
    "added top-level key": ("+foo=1", ("foo", "unknown key", "metadata")),
    "added key of a node": ("+tasks.ocr.shar=2", ("tasks.ocr.shar", "'share'")),
    "added key of Lightning": ("+trainer.max_epoch=1", ("trainer.max_epoch", "'max_epochs'")),
    "added part without target": ("+callbacks.bost.factor=1", ("callbacks.bost", "'boost'")),
    "added key of the model": ("+model.poolin=1", ("model.poolin", "'pooling'")),
    "key known but not set": ("losses.ocr.given_only=true", ("+losses.ocr.given_only",)),
    "key that the run sets": ("+trainer.max_steps=3", ("is set by the run", "total_steps")),
    "deleted key": ("~seed", ("seed", "is missing")),
    "deleted key of a node": ("~tasks.ocr.prefix", ("tasks.ocr.prefix", "is missing")),
    "unknown option": ("model=tinny", ("model=tinny", "'tiny'")),
    "unknown group": ("modle=tiny", ("modle", "'model'")),
    "unknown group, added": ("+modle=tiny", ("modle", "'model'")),
    "unknown experiment": ("experiment=phase3", ("experiment=phase3", "'phase1'", "'phase2'")),
    "unknown task file": ("task=[ocr,vqa]", ("task=vqa", "choose one of")),
    "not an override": ("a=b=c={", ("override", "KEY=VALUE")),
    "unknown flag": ("--sede", ("unrecognized", "--sede")),
    "text for a number": ("tasks.ocr.share=two", ("tasks.ocr.share", "a number", "'two'")),
    "text for a whole number": ("seed=abc", ("seed", "a whole number", "'abc'")),
    "nothing for a number": ("seed=", ("seed", "a whole number")),
    "fraction for a whole number": ("validate_every=1.5", ("validate_every", "whole", "1.5")),
    "number for a switch": ("baseline=2", ("baseline", "true or false")),
    "switch for a number": ("trainer.num_nodes=true", ("trainer.num_nodes", "whole", "true")),
    "list for a number": ("data.eval_rows=[1]", ("data.eval_rows", "whole number")),
    "list too long": ("weighting.bounds=[1,2,3]", ("weighting.bounds", "a list of 2")),
    "text in a list": ("optimizer.betas=[0.9,x]", ("optimizer.betas[1]", "a number", "'x'")),
    "text for a node": ("data.source=x", ("data.source", "_target_")),
    "unknown literal": ("trainer.precision=fp16", ("trainer.precision", "'bf16'")),
    "unknown attention": ("model.encoder.attention=paked", ("encoder.attention", "'packed'")),
    "unknown resizing": ("data.resize=cv2", ("data.resize", "pillow, torch")),
    "unknown ablation": ("ablations=[gray_pictures]", ("ablations[0]", "'grey_pictures'")),
    "ablation of two tasks": (
        "ablations=[wrong_prefix] task=[ocr] curriculum=single_phase",
        ("ablations", "second task"),
    ),
    "negative seed": ("seed=-1", ("seed", "at least 0")),
    "no validation": ("validate_every=0", ("validate_every", "at least 1")),
    "tied evaluation without its steps": ("eval=tied", ("eval_steps", "validate_every", "give")),
    "text for eval_steps": ("eval=tied eval_steps=often", ("eval_steps", "a whole number")),
    "no eval_steps": ("eval=tied eval_steps=0", ("at least 1", "eval/tied.yaml")),
    "group for a key": ("+eval.every=5", ("eval", "is a group, not a key")),
    "unknown mode of beta": ("weighting.beta.mode=both", ("weighting.beta.mode", "learning_rate")),
    "beta on nothing": (
        "weighting.beta.mode=alpha weighting.beta.tasks=[instruction]",
        ("weighting.beta.tasks", "would change no ratio"),
    ),
    "beta on an unknown task": (
        "weighting.beta.mode=alpha weighting.beta.tasks=[txt_pair]",
        ("beta.tasks", "'text_pair'"),
    ),
    "unknown fallback": ("weighting.fallback=clibrated", ("weighting.fallback", "'calibrated'")),
    "unknown shape of the boost": ("callbacks.boost.shape=line", ("boost.shape", "'linear'")),
    "gain of none": ("model.projection.gain=0", ("model.projection", "gain", "> 0")),
    "batch of none": ("data.rows_per_task.ocr=0", ("data.rows_per_task.ocr", "at least 1")),
    "rate of none": ("optimizer.head_lr=0", ("optimizer.head_lr", "above 0")),
    "negatives of no kind": (
        "tasks.ocr.negatives_from=mined",
        ("tasks.ocr.negatives_from", "batch, both, given"),
    ),
    "second direction of given negatives": (
        "tasks.vqa_single.negatives_from=given losses.vqa_single.symmetric=true",
        ("losses.vqa_single.symmetric", "negatives_from=given", "set it to false"),
    ),
    "given negatives that are not read": (
        "tasks.vqa_single.negatives_from=batch +losses.vqa_single.given_only=true",
        ("losses.vqa_single.given_only", "negatives_from=batch"),
    ),
    "negative temperature": ("losses.ocr.temperature=-1", ("losses.ocr", "temperature is -1")),
    "share of none": (
        "tasks.ocr.share=0 data.rows_per_task=null data.batch_size=8",
        ("tasks.ocr", "share must be positive"),
    ),
    "rate limit below 1": ("weighting.rate_limit=0.5", ("weighting.rate_limit", "> 1")),
    "steps before the start": ("curriculum.total_steps=0", ("total_steps", "start_step")),
    "phase 1 takes all": (
        "data.rows_per_task=null data.batch_size=16 shares_over=run phase1_steps=300 "
        "total_steps=310",
        ("curriculum", "more than its share", "shares_over=phase"),
    ),
    "target outside": ("losses.ocr._target_=os.system", ("_target_", "os.system", "polyqwen.*")),
    "target by a detour": (
        "losses.ocr._target_=polyqwen.data.rows.jsonl.os.system",
        ("_target_", "os.system", "not allowed"),
    ),
    "misspelt target": (
        "losses.ocr._target_=polyqwen.losses.grounded.GroundLoss",
        ("there is no 'GroundLoss'", "'GroundedLoss'"),
    ),
    "misspelt module": (
        "losses.ocr._target_=polyqwen.losses.ground.GroundedLoss",
        ("there is no 'ground'", "'grounded'"),
    ),
    "unknown class": (
        "task=[topic] curriculum=single_phase losses.topic.class_weights={canteen:2}",
        ("losses.topic", "class_weights", "canteen", "facility"),
    ),
    "one class": (
        "task=[topic] curriculum=single_phase tasks.topic.classes=[lecturer]",
        ("tasks.topic", "at least 2 different"),
    ),
    "class that is no text": (
        "task=[topic] curriculum=single_phase tasks.topic.classes=[1,2]",
        ("tasks.topic.classes[0]", "a text", "quotes"),
    ),
    "size of a head": (
        "task=[topic] curriculum=single_phase +losses.topic.embedding_size=4",
        ("losses.topic.embedding_size", "is set by the run"),
    ),
    "unknown task": ("+weighting.alpha.ocrr=1", ("weighting.alpha.ocrr", "'ocr'")),
    "unknown task's loss": ("+losses.ocrr.margin=1", ("losses.ocrr", "'ocr'")),
    "unknown task as a value": ("callbacks.boost.task=txt_pair", ("boost.task", "'text_pair'")),
    "interpolation": ("schedule_steps=${nope}", ("schedule_steps", "${nope}")),
    "interpolation, nearly": ("schedule_steps=${validate_evry}", ("'validate_every'",)),
    "value still missing": ("data=folder", ("data.root", "has no value")),
    "no data folder": ("data=folder data.root=/nowhere", ("data.root=/nowhere", "not a folder")),
    "unknown study": ("study=wheighting", ("study=wheighting", "'weighting'")),
    "misspelt key of a study": ("study=weighting study.job=2", ("study.job", "'jobs'")),
    "unknown key of a study": ("study=weighting +study.x=2", ("study.x", "unknown key")),
    "text for a study's jobs": ("study=weighting study.jobs=two", ("study.jobs", "whole number")),
    "no seeds": ("study=weighting study.seeds=[]", ("study.seeds", "numbers >= 0")),
    "seed of a study": ("study=weighting seed=3", ("seed=3", "study.seeds")),
    "unknown baseline": ("study=weighting study.baseline=statc", ("study.baseline", "static")),
    "a study's key without one": ("study.jobs=2", ("study",)),
    "no checkpoint": ("init_from=/nowhere.ckpt", ("init_from", "/nowhere.ckpt")),
}


@pytest.mark.parametrize("kind", CONFIG)
def test_wrong_configurations(kind: str, tmp_path: Path) -> None:
    arguments, words = CONFIG[kind]
    own = [f"hydra.run.dir={tmp_path}/run", f"data_cache={tmp_path}"]
    ended = forked("train.py", [*arguments.split(), *own], tmp_path, seconds=60)
    assert_refused(ended, words, code=2)
    assert not (tmp_path / "run" / "checkpoints").exists()


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (["weighting:", "  alfa: {ocr: 1}"], ("weighting.alfa", "'alpha'", "experiment/mine.yaml")),
        (["waighting:", "  eval_steps: 1"], ("waighting", "'weighting'", "experiment/mine.yaml")),
        (["seed: [1"], ("mine.yaml, line", "not YAML")),
        (["defaults:", "  - override /model: tinny"], ("model=tinny", "'tiny'")),
    ],
)
def test_mistakes_in_an_experiment_file(
    lines: list[str], words: tuple[str, ...], tmp_path: Path
) -> None:
    (tmp_path / "experiment").mkdir()
    text = "\n".join(["# @package _global_", *lines, ""])
    (tmp_path / "experiment" / "mine.yaml").write_text(text)
    own = [f"--config-dir={tmp_path}", "experiment=mine", f"hydra.run.dir={tmp_path}/run"]
    assert_refused(forked("train.py", own, tmp_path), words, code=2)


def test_notes_are_free_and_options_still_work(tmp_path: Path) -> None:
    ended = forked("train.py", ["--cfg", "job", "+metadata.any.thing=1", "seed=3"], tmp_path)
    assert ended.code == 0 and "thing: 1" in ended.out and "seed: 3" in ended.out
    text = forked("train.py", ["--help"], tmp_path).out
    assert "weighting: aligned_mtl, " in text and "study: base, choosing, claims, " in text


def test_a_sweep_ends_with_its_failing_job(tmp_path: Path) -> None:
    own = ["-m", "weighting.rate_limit=0.5,2", f"hydra.sweep.dir={tmp_path}/sweep"]
    assert_refused(forked("train.py", own, tmp_path), ("weighting.rate_limit",), code=2)
    assert not (tmp_path / "sweep" / "1").exists()


# what is done to a good data folder, and the words of the refusal
Spoil = Callable[[Path], object]


def _rewrite(name: str, change: Callable[[dict], object]) -> Spoil:
    """Changes the third row of a file."""

    def spoil(root: Path) -> None:
        lines = (root / name).read_text().splitlines()
        row = json.loads(lines[2])
        change(row)
        lines[2] = json.dumps(row)
        (root / name).write_text("\n".join(lines) + "\n")

    return spoil


def _truncate(root: Path) -> None:
    row = json.loads((root / "ocr/train.jsonl").read_text().splitlines()[2])
    picture = root / row["image"]
    picture.write_bytes(picture.read_bytes()[:-60])


def _append(name: str, text: bytes) -> Spoil:
    return lambda root: (root / name).write_bytes((root / name).read_bytes() + text)


DATA: dict[str, tuple[Spoil, tuple[str, ...]]] = {
    "missing split": (lambda r: (r / "ocr/dev.jsonl").unlink(), ("ocr", "dev", ".jsonl")),
    "empty file": (lambda r: (r / "ocr/dev.jsonl").write_text(""), ("ocr/dev.jsonl", "no rows in")),
    "broken JSON": (_append("ocr/train.jsonl", b"{'a': 1\n"), ("train.jsonl, line", "not JSON")),
    "not UTF-8": (_append("ocr/train.jsonl", b'{"a": "\xff"}\n'), ("line", "not UTF-8")),
    "no object": (_append("ocr/train.jsonl", b"[1]\n"), ("line", "not a JSON object")),
    "no Parquet": (
        lambda r: (r / "ocr/dev.jsonl").rename(r / "ocr/dev.parquet"),
        ("dev.parquet", "Parquet"),
    ),
    "no field": (
        _rewrite("ocr/train.jsonl", lambda row: row.pop("text")),
        ("train.jsonl, line 3", "no column 'text'"),
    ),
    "empty field": (
        _rewrite("ocr/train.jsonl", lambda row: row.update(text=" ")),
        ("train.jsonl, line 3", "empty"),
    ),
    "score above 1": (
        _rewrite("text_pair/test.jsonl", lambda row: row.update(score=4.5)),
        ("test.jsonl, line 3", "score=4.5", "[0, 1]"),
    ),
    "score no number": (
        _rewrite("text_pair/test.jsonl", lambda row: row.update(score="high")),
        ("line 3", "score='high'"),
    ),
    "no picture": (
        _rewrite("ocr/train.jsonl", lambda row: row.update(image="no.png")),
        ("line 3", "no.png", "no such file"),
    ),
    "picture outside": (
        _rewrite("ocr/train.jsonl", lambda row: row.update(image="../x.png")),
        ("line 3", "outside the data root"),
    ),
    "truncated picture": (_truncate, ("cannot be read", "truncated")),
}


@pytest.fixture
def copy(folder: Path, tmp_path: Path) -> Path:
    """A data folder of one's own."""
    return shutil.copytree(folder, tmp_path / "data")


def arguments(root: Path, out: Path, *more: str) -> list[str]:
    """A short run on a folder's OCR and text pairs."""
    data = ["data=folder", f"data.root={root}", f"data_cache={out}/cache", "data.batch_size=null"]
    few = ["data.rows_per_task=16", "task=[text_pair,ocr]", "baseline=false", "ablations=[]"]
    quiet = [f"hydra.run.dir={out}/run", "trainer.accelerator=cpu"]
    return [*data, *few, *quiet, *SHORT, *more]


@pytest.mark.parametrize("kind", DATA)
def test_bad_data(kind: str, copy: Path, tmp_path: Path) -> None:
    spoil, words = DATA[kind]
    spoil(copy)
    more = ["curriculum.total_steps=6"] if kind == "truncated picture" else []  # a whole pass
    assert_refused(forked("train.py", arguments(copy, tmp_path, *more), tmp_path), words)
    assert not list((tmp_path / "cache").rglob(f".*{TEMPORARY}"))  # nothing half-written is left


def test_given_negatives_must_be_there_where_they_are_the_only_ones(
    copy: Path, tmp_path: Path
) -> None:
    own = arguments(copy, tmp_path, "tasks.ocr.negatives_from=given")
    words = ("tasks.ocr.negatives_from=given", "no row of", "'negatives'", "choose both")
    assert_refused(forked("train.py", own, tmp_path), words)


def test_bad_rows_may_be_skipped_up_to_a_cap(copy: Path, tmp_path: Path) -> None:
    _truncate(copy)
    _rewrite("ocr/dev.jsonl", lambda row: row.update(image="no.png"))(copy)
    skip = arguments(copy, tmp_path, "data.bad_rows=skip", "data.rows_per_task=4")
    words = ("of 64 rows are bad (1 picture damaged)", "max_bad_share=0.01", "truncated")
    assert_refused(forked("train.py", skip, tmp_path), words)
    ended = forked("train.py", [*skip, "data.max_bad_share=0.2"], tmp_path)
    assert ended.code == 0, ended.err[-2000:]
    warned = [line for line in (ended.out + ended.err).splitlines() if "are left out" in line]
    assert len(warned) == 2 and "1 of 32" in warned[1] and "no.png" in warned[1]


def test_checkpoints_that_do_not_fit(folder: Path, tmp_path: Path) -> None:
    other, torn = tmp_path / "other.ckpt", tmp_path / "torn.ckpt"
    torch.save({"state_dict": {"encoder.weight": torch.zeros(2)}}, other)
    torn.write_bytes(other.read_bytes()[:300])
    for path, words in ((other, ("other.ckpt", "does not fit")), (torn, ("torn.ckpt", "damaged"))):
        own = arguments(folder, tmp_path, f"init_from={path}")
        assert_refused(forked("train.py", own, tmp_path), words)


def test_evaluate_refuses_likewise(tmp_path: Path) -> None:
    def refused(*own: str, words: tuple[str, ...]) -> None:
        assert_refused(forked("evaluate.py", list(own), tmp_path), words)

    refused("run_dir=/nowhere", words=("/nowhere", "not the folder of a run"))
    refused(words=("run_dir", "has no value"))
    refused("run_dir=x", "split=tset", words=("split", "'test'"))
    refused("run_dir=x", "data.rot=y", words=("data.rot", "'root'"))
    refused("run_dir=x", "ablations=[none]", words=("ablations[0]",))
    (tmp_path / "config.yaml").write_text("data: {_target_: os.system, command: ls}\n")
    refused(f"run_dir={tmp_path}", words=("data._target_", "os.system is not allowed"))


def test_mistakes_are_found_before_the_heavy_imports(tmp_path: Path) -> None:
    """In a process of its own, which has imported nothing."""
    for override in ("+foo=1", "+tasks.ocr.shar=1", "seed=abc", "model=tinny", "seed=-1"):
        code = (
            "import runpy, sys\n"
            f"sys.argv = ['train.py', {override!r}, 'hydra.run.dir={tmp_path}']\n"
            "try: runpy.run_path('train.py', run_name='__main__')\n"
            "except SystemExit as end: code = end.code\n"
            "heavy = {'torch', 'lightning', 'transformers', 'datasets'} & set(sys.modules)\n"
            "print(code, sorted(heavy))\n"
        )
        ended = subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert ended.stdout.strip() == "2 []", (override, ended.stdout, ended.stderr)


def test_programming_errors_keep_their_traceback(tmp_path: Path) -> None:
    script = tmp_path / "broken.py"
    script.write_text(
        "from polyqwen.app.entry import command\n"
        "def main(cfg):\n    raise TypeError('a bug')\n"
        "if __name__ == '__main__':\n    command('train', main)\n"
    )
    shutil.copytree(ROOT / "conf", tmp_path / "conf")
    ended = subprocess.run(
        [sys.executable, str(script), f"hydra.run.dir={tmp_path}/run"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 1 and "Traceback" in ended.stderr and "a bug" in ended.stderr
