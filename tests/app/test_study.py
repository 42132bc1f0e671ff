"""Studies: planned, checked before the first run, killed, resumed, compared."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from omegaconf import OmegaConf

from polyqwen.app.study.compose import quoted
from polyqwen.app.study.plan import Job, Study, key_of
from polyqwen.app.study.run import Ended, Process, Stopped, run_all
from polyqwen.app.study.state import Lock, clear, differences, finished
from polyqwen.config.errors import ConfigError
from tests.app.test_launch import working_for
from tests.app.test_train import SMALL
from tests.conftest import ROOT, Configure

VARIANTS = {"static": ["weighting=static"], "stw": ["weighting=stw", "weighting.eval_steps=2"]}


def study(**changed: Any) -> Study:
    given: dict[str, Any] = {"name": "s", "folder": "study_s", "baseline": "static"}
    return Study(**{**given, "variants": VARIANTS, "common": ["seed_like=1"], **changed})


def test_a_plan_goes_seed_by_seed_and_the_variant_has_the_last_word(tmp_path: Path) -> None:
    given = ["study=s", "study.seeds=[3,1]", "curriculum.total_steps=9", "+metadata.why=x"]
    jobs = study(seeds=[3, 1]).plan(tmp_path, given)
    assert [(j.variant, j.seed) for j in jobs] == [
        *(("static", 3), ("stw", 3), ("static", 1), ("stw", 1)),
    ]
    assert jobs[1].folder == tmp_path / "stw" / "seed_3"
    assert list(jobs[1].overrides) == [
        *("seed_like=1", "curriculum.total_steps=9", "+metadata.why=x"),
        *("weighting=stw", "weighting.eval_steps=2", "seed=3"),
    ]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"baseline": "statc"}, "study.baseline is statc"),
        ({"seeds": [1, 1]}, "different numbers"),
        ({"seeds": []}, "different numbers"),
        ({"jobs": 0}, "study.jobs must be at least 1"),
        ({"name": "../x"}, "names a folder"),
        ({"variants": {"static": [], "a b": []}}, "'a b' names a folder"),
        ({"claims": {"c": {"text": "t", "with": "nope"}}}, "names 'nope'"),
        ({"claims": {"c": {"with": "stw"}}}, "study.claims.c.text is missing"),
    ],
)
def test_impossible_studies_are_refused(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        study(**changed)


@pytest.mark.parametrize("override", ["seed=1", "run_dir=x", "resume=auto", "weighting=dwa"])
def test_what_the_study_or_a_variant_sets_is_not_given_twice(override: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"set by the study|would undo variant"):
        study().plan(tmp_path, [override])


def test_keys_of_overrides() -> None:
    pairs = {"a.b=1": "a.b", "+a=x=y": "a", "~a.b": "a.b", "model/pooling@x=mean": "model/pooling"}
    assert {text: key_of(text) for text in pairs} == pairs
    assert quoted(r"it's C:\x") == r"'it\'s C:\\x'"


def sleeper(name: str, folder: Path, seconds: float, code: int = 0) -> Process:
    program = f"import time, sys; time.sleep({seconds}); print('said'); sys.exit({code})"
    return Process(name, [sys.executable, "-c", program], folder / name / "log")


def test_a_pool_runs_so_many_at_a_time_and_reports_each(tmp_path: Path) -> None:
    ended: list[Ended] = []
    tasks = [sleeper(name, tmp_path, 0.4, code) for name, code in (("a", 0), ("b", 3), ("c", 0))]
    start = time.monotonic()
    run_all(tasks, ended.append, at_a_time=2, threads=1)
    assert {e.process.name: e.status for e in ended} == {"a": 0, "b": 3, "c": 0}
    assert ended[-1].process.name == "c" and time.monotonic() - start > 0.8
    assert all(e.process.log.read_text() == "said\n" for e in ended)


def test_a_stopped_pool_leaves_no_process(tmp_path: Path) -> None:
    tasks = [sleeper("quick", tmp_path, 0.0), sleeper("long", tmp_path, 300.0)]

    def interrupt(ended: Ended) -> None:
        os.kill(os.getpid(), signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(Stopped) as stopped:
        run_all(tasks, interrupt, at_a_time=2, threads=1, kept=[])
    assert stopped.value.number == signal.SIGINT and signal.getsignal(signal.SIGINT) is before
    children = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split()
    commands = [Path(f"/proc/{pid}/cmdline").read_text() for pid in children]
    assert not any("sleep(300.0)" in command for command in commands)


def test_a_lock_is_for_one_and_outlives_its_holder_in_what_it_started(tmp_path: Path) -> None:
    first, second = Lock(tmp_path), Lock(tmp_path)
    assert first.take() and not second.take()
    child = subprocess.Popen(["sleep", "60"], pass_fds=[first.descriptor])
    first.release()
    assert not second.take()
    child.kill()
    child.wait()
    assert second.take()


def test_finished_runs_are_told_by_results_and_configuration(
    configure: Configure, tmp_path: Path
) -> None:
    folder = tmp_path / "v" / "seed_0"
    job = Job("v", 0, folder, ())
    cfg = configure(f"run_dir={folder}", "log_dir=one")
    assert not finished(job, cfg)
    folder.mkdir(parents=True)
    OmegaConf.save(cfg, folder / "config.yaml", resolve=True)
    assert not finished(job, cfg)
    (folder / "results.json").write_text('{"trained": {')  # no run leaves this
    assert not finished(job, cfg)
    (folder / "results.json").write_text("{}")
    assert finished(job, cfg)
    moved = configure(f"run_dir={tmp_path / 'moved'}", "log_dir=other", "+metadata.why=x")
    assert finished(job, moved) and not differences(moved, cfg)
    other = configure(f"run_dir={folder}", "optimizer.head_lr=0.5")
    with pytest.raises(ValueError, match=r"optimizer\.head_lr: 0\.0005 instead of 0\.5; give"):
        finished(job, other)
    clear(folder)
    assert not folder.exists()


@pytest.fixture
def command(folder: Path, cache: Path, tmp_path: Path) -> list[str]:
    """``python train.py study=mine …`` on the small data set; the study is a file of the user's."""
    (tmp_path / "conf" / "study").mkdir(parents=True)
    mine = {
        "defaults": ["base", "_self_"],
        "name": "mine",
        "baseline": "static",
        "seeds": [0],
        "common": [*SMALL, "data=folder", "baseline=false", "ablations=[]", "callbacks.best=null"],
        "variants": {"static": ["weighting=static"], "stw": ["weighting=stw"]},
    }
    path = tmp_path / "conf" / "study" / "mine.yaml"
    path.write_text(yaml.safe_dump(mine, sort_keys=False))
    own = [f"--config-dir={path.parents[1]}", "study=mine", "data=folder", f"data.root={folder}"]
    quiet = ["callbacks.progress=null", "callbacks.galleries=null", "callbacks.histograms=null"]
    place = [f"data_cache={cache}", f"log_dir={tmp_path / 'logs'}"]
    return [sys.executable, "train.py", *own, *quiet, *place]


def ended(command: list[str], *more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*command, *more], cwd=ROOT, capture_output=True, text=True, check=False, timeout=300
    )


def test_mistakes_in_the_last_variant_cost_no_run(command: list[str], tmp_path: Path) -> None:
    cases = {
        "+study.variants.late=['weighting=stw','weighting.alfa=1']": (
            "study.variants.late",
            "'alpha'",
        ),
        "+study.variants.late=['weighting=swt']": ("study.variants.late", "'stw'"),
        "+study.variants.late=['optimizer.head_lr=-1']": ("study.variants.late", "above 0"),
        "+study.variants.late=['weighting.rate_limit=0.5']": ("study.variants.late", "> 1"),
        "seed=4": ("seed=4", "study.seeds"),
        "weighting=stw": ("would undo variant static",),
    }
    for override, words in cases.items():
        result = ended(command, override)
        assert result.returncode == 2 and result.stderr.count("\n") == 1, result.stderr
        assert all(word in result.stderr for word in words), result.stderr
        assert result.stdout == ""
    assert not list(tmp_path.rglob("seed_*"))


@pytest.fixture
def running(command: list[str], tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """The study while its second run trains, without end; nothing of it outlives the test."""
    folder = tmp_path / "logs" / "study_mine"
    long = "study.variants.stw=['weighting=stw','total_steps=4000']"
    process = subprocess.Popen(
        [*command, long],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        for _ in range(1200):
            if (folder / "stw/seed_0/csv/metrics.csv").is_file() or process.poll() is not None:
                break
            time.sleep(0.1)
        assert process.poll() is None
        yield process, folder
    finally:
        for pid in working_for(folder):
            os.kill(pid, signal.SIGKILL)
        process.kill()
        process.communicate()


@pytest.mark.slow
def test_a_killed_study_goes_on(
    running: tuple[subprocess.Popen[str], Path], command: list[str]
) -> None:
    process, folder = running
    process.kill()
    process.wait()
    done = folder / "static" / "seed_0" / "results.json"
    written = done.stat().st_mtime_ns
    assert not (folder / "stw" / "seed_0" / "results.json").exists()
    left = folder / "stw" / "seed_0" / "left_over"
    left.touch()

    result = ended(command, "study.jobs=2")  # at once: the orphaned run is on its way out
    assert result.returncode == 0, result.stderr[-2000:]
    assert "1 of 2 runs finished" in result.stdout and "[2/2] stw seed 0: score" in result.stdout
    assert done.stat().st_mtime_ns == written and not left.exists()
    assert (folder / "leaderboard" / "leaderboard.html").is_file()
    manifest = json.loads((folder / "study.json").read_text())
    assert [run["folder"] for run in manifest["runs"]] == ["static/seed_0", "stw/seed_0"]
    assert not working_for(folder)

    again = ended(command)
    assert again.returncode == 0 and "2 of 2 runs finished" in again.stdout
    other = ended(command, "optimizer.head_lr=0.001")
    assert other.returncode == 1 and other.stderr.count("\n") == 1
    assert "optimizer.head_lr: 0.0005 instead of 0.001" in other.stderr


@pytest.mark.slow
def test_ctrl_c_ends_the_runs_too(running: tuple[subprocess.Popen[str], Path]) -> None:
    process, folder = running
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 130 and not working_for(folder)
    assert err == "interrupted: 1 of 2 runs finished; the same command goes on\n"
    assert "[1/2] static seed 0: score" in out


@pytest.mark.slow
def test_a_run_that_fails_does_not_stop_the_others(command: list[str], tmp_path: Path) -> None:
    torn = tmp_path / "torn.ckpt"
    torn.write_bytes(b"no checkpoint")
    broken = f"study.variants.static=['weighting=static','init_from={torn}']"
    result = ended(command, broken, "study.baseline=stw")
    assert result.returncode == 1
    assert "[1/2] static seed 0: FAILED" in result.stdout and "is damaged" in result.stdout
    assert "[2/2] stw seed 0: score" in result.stdout
    assert "error: 1 of 2 runs failed: static seed 0" in result.stderr
    text = (tmp_path / "logs" / "study_mine" / "leaderboard" / "leaderboard.md").read_text()
    assert "static seed 0 does not count: exit status 1" in text
