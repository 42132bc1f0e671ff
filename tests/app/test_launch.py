"""Several processes as a user starts them: one folder, equal values, none left over."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from polyqwen.app.launch import launch
from polyqwen.build.processes import device_count, precision_of
from tests.app.test_train import SMALL, run
from tests.conftest import ROOT, Configure

QUICK = [*SMALL, "baseline=false", "ablations=[]", "callbacks.progress=null"]


def working_for(folder: Path, rank: int | None = None) -> list[int]:
    """Processes that have a run's folder in their command (and this rank)."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_text()
            environment = (process / "environ").read_text().split("\0")
        except OSError:  # it has just ended
            continue
        if str(folder) in command and (rank is None or f"LOCAL_RANK={rank}" in environment):
            found.append(int(process.name))
    return found


def torchrun(*arguments: str) -> subprocess.CompletedProcess[str]:
    """``torchrun --nproc-per-node=2 train.py trainer.devices=2 …``"""
    launcher = ["torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    return subprocess.run(
        [sys.executable, "-m", *launcher, "train.py", *arguments, "trainer.devices=2"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


@pytest.mark.slow
def test_a_sweep_over_two_processes(folder: Path, cache: Path, tmp_path: Path) -> None:
    out = tmp_path / "sweep"
    run(
        "train.py",
        "-m",
        "data=folder",
        f"data.root={folder}",
        f"data_cache={cache}",
        *QUICK,
        "trainer.devices=2",
        "weighting.alpha.text_pair=0.2,0.27",
        "+metadata.drawn=${now:%f}",  # drawn anew by each process that composes: must not be
        f"hydra.sweep.dir={out}",
    )
    jobs = sorted(path.parent for path in out.glob("*/results.json"))
    assert [job.name for job in jobs] == ["0", "1"]
    alphas = [OmegaConf.load(job / "config.yaml").weighting.alpha.text_pair for job in jobs]
    drawn = [OmegaConf.load(job / "config.yaml").metadata.drawn for job in jobs]
    assert alphas == [0.2, 0.27] and drawn[0] != drawn[1]
    for job in jobs:
        assert (job / "checkpoints" / "last.ckpt").is_file()
        assert "MEMBER: 2/2" in (job / "rank_1.log").read_text()
    assert not working_for(out)


def test_torchrun_works_as_well(folder: Path, cache: Path, tmp_path: Path) -> None:
    data = ["data=folder", f"data.root={folder}", f"data_cache={cache}", *QUICK]
    result = torchrun(*data, f"log_dir={tmp_path}")
    assert result.returncode == 0, result.stderr[-3000:]
    (job,) = tmp_path.glob("*/*/results.json")
    assert (job.parent / "checkpoints" / "last.ckpt").is_file()
    assert result.stdout.count("run: ") == 1  # one of the two speaks


def test_ranks_that_differ_are_refused(folder: Path, cache: Path, tmp_path: Path) -> None:
    data = ["data=folder", f"data.root={folder}", f"data_cache={cache}", *QUICK]
    result = torchrun(*data, f"log_dir={tmp_path}", "+metadata.rank=${oc.env:LOCAL_RANK}")
    assert result.returncode != 0
    assert "rank 1 runs another configuration than rank 0: metadata.rank = " in result.stderr
    assert not list(tmp_path.glob("*/*/checkpoints"))


@contextmanager
def training(
    folder: Path, cache: Path, out: Path, *arguments: str
) -> Iterator[subprocess.Popen[str]]:
    """A long run, once it has made its first steps; ended with the test."""
    data = ["data=folder", f"data.root={folder}", f"data_cache={cache}", *QUICK]
    many = ["total_steps=2000", "phase1_steps=1000", "validate_every=1000"]
    process = subprocess.Popen(
        [sys.executable, "train.py", *data, *many, *arguments, f"run_dir={out}"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    metrics = out / "csv" / "metrics.csv"
    try:
        for _ in range(3000):  # a start takes ten times as long on a busy machine
            if metrics.is_file() or process.poll() is not None:
                break
            time.sleep(0.1)
        assert process.poll() is None and metrics.is_file()
        yield process
    finally:
        for pid in working_for(out):
            os.kill(pid, signal.SIGKILL)
        process.communicate()


def test_a_rank_that_dies_ends_all(folder: Path, cache: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    with training(folder, cache, out, "trainer.devices=2") as process:
        (victim,) = working_for(out, rank=1)
        os.kill(victim, signal.SIGKILL)
        start = time.monotonic()
        text, _ = process.communicate(timeout=60)
        assert process.returncode == 137 and time.monotonic() - start < 15
        assert "rank 1 failed" in text and not working_for(out)


@pytest.mark.parametrize("devices", [1, 2])
def test_ctrl_c_saves_and_ends_all(folder: Path, cache: Path, tmp_path: Path, devices: int) -> None:
    out = tmp_path / "run"
    with training(folder, cache, out, f"trainer.devices={devices}") as process:
        process.send_signal(signal.SIGINT)
        start = time.monotonic()
        text, _ = process.communicate(timeout=60)
        assert process.returncode == 130 and time.monotonic() - start < 15, text
        assert not working_for(out)
    steps = int(re.search(r"interrupted \(SIGINT\) after (\d+) steps", text)[1])  # type: ignore[index]
    saved = torch.load(out / "checkpoints" / "last.ckpt", weights_only=True)
    assert saved["global_step"] == steps > 0


def test_one_rank_asked_to_end_ends_all(folder: Path, cache: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    with training(folder, cache, out, "trainer.devices=2") as process:
        (asked,) = working_for(out, rank=1)
        os.kill(asked, signal.SIGTERM)
        text, _ = process.communicate(timeout=60)
        assert process.returncode == 143 and not working_for(out), text
    assert "interrupted (SIGTERM)" in text
    assert (out / "checkpoints" / "last.ckpt").is_file()


def test_a_killed_launcher_takes_its_ranks_along(folder: Path, cache: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    with training(folder, cache, out, "trainer.devices=2") as process:
        launcher, *ranks = [process.pid, *working_for(out, rank=0), *working_for(out, rank=1)]
        assert len(ranks) == 2
        os.kill(launcher, signal.SIGKILL)
        process.wait(timeout=5)
        until = time.monotonic() + 5.0
        while working_for(out) and time.monotonic() < until:
            time.sleep(0.05)
        assert not working_for(out)
    assert (out / "checkpoints" / "last.ckpt").is_file()  # SIGTERM: what was trained is saved


def test_a_rank_whose_launcher_is_gone_already_ends_at_once() -> None:
    program = "from polyqwen.app.signals import end_with_parent; end_with_parent({}); print('on')"
    codes = []
    for parent in (os.getpid(), 1):
        command = [sys.executable, "-c", program.format(parent)]
        codes.append(subprocess.run(command, cwd=ROOT, check=False).returncode)
    assert codes == [0, -signal.SIGTERM]


FAILING = """
import os, sys, time
from pathlib import Path
def note(text):
    Path(sys.argv[1]).with_name(f"rank_{os.environ['RANK']}.error").write_text(text)
if os.environ["RANK"] == "1":
    note("a picture cannot be read")
    time.sleep(LINGER)
    sys.exit(1)
while not Path(sys.argv[1]).with_name("rank_1.error").exists():
    time.sleep(0.01)
time.sleep(LOST)
note("connection closed by peer")
sys.exit(1)
"""


@pytest.mark.parametrize(
    ("linger", "lost"), [(1.5, 0.2), (300.0, 300.0)], ids=["ends last", "hangs as it ends"]
)
def test_the_first_rank_to_fail_is_named_and_not_waited_for(
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    tmp_path: Path,
    linger: float,
    lost: float,
) -> None:
    program = FAILING.replace("LINGER", str(linger)).replace("LOST", str(lost))
    monkeypatch.setattr("polyqwen.app.launch.WORKER", ("-c", program))
    start = time.monotonic()
    with pytest.raises(SystemExit) as ended:
        launch(OmegaConf.create({"run_dir": str(tmp_path)}), 2)
    assert ended.value.code == 1 and time.monotonic() - start < 15
    last = capfd.readouterr().err.splitlines()[-1]
    assert last.startswith("error: rank 1 failed: a picture cannot be read (all of it: ")
    assert not working_for(tmp_path)


@pytest.mark.parametrize("ignored", [False, True], ids=["a closed terminal", "nohup"])
def test_a_hangup_reaches_the_ranks_unless_it_is_ignored(
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    tmp_path: Path,
    ignored: bool,
) -> None:
    """Ranks that have no handler yet: the launcher says how to go on."""
    program = "import os, time; os.kill(os.getppid(), 1); time.sleep(3)"
    monkeypatch.setattr("polyqwen.app.launch.WORKER", ("-c", program))
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN if ignored else signal.SIG_DFL)
    try:
        if ignored:
            launch(OmegaConf.create({"run_dir": str(tmp_path)}), 2)
        else:
            with pytest.raises(SystemExit) as ended:
                launch(OmegaConf.create({"run_dir": str(tmp_path)}), 2)
            assert ended.value.code == 129
        kept = signal.getsignal(signal.SIGHUP)
        assert kept is (signal.SIG_IGN if ignored else signal.SIG_DFL)
    finally:
        signal.signal(signal.SIGHUP, before)
    said = "" if ignored else "interrupted (SIGHUP); this run has no checkpoint yet\n"
    assert capfd.readouterr().err == said and not working_for(tmp_path)


def test_a_second_signal_ends_at_once(folder: Path, cache: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    with training(folder, cache, out) as process:
        # both arrive in the same step
        for number in (signal.SIGSTOP, signal.SIGTERM, signal.SIGINT, signal.SIGCONT):
            process.send_signal(number)
        process.communicate(timeout=10)
        assert process.returncode in (-signal.SIGTERM, -signal.SIGINT)
    assert not (out / "checkpoints" / "last.ckpt").exists()


@pytest.mark.parametrize(
    ("devices", "nodes", "message"),
    [(0, 1, "number >= 1"), (2, 2, "needs a launcher")],
)
def test_impossible_numbers_of_processes_are_refused(
    configure: Configure, devices: int, nodes: int, message: str
) -> None:
    cfg = configure(f"trainer.devices={devices}", f"trainer.num_nodes={nodes}")
    with pytest.raises(ValueError, match=message):
        device_count(cfg)


def test_more_gpus_than_there_are_is_refused(configure: Configure) -> None:
    with pytest.raises(ValueError, match=r"devices=99, but this machine has .*trainer\.devices=1"):
        device_count(configure("trainer.devices=99", "trainer.accelerator=gpu"))
    assert device_count(configure("trainer.devices=4", "trainer.accelerator=cpu")) == 4


def test_too_few_gpus_are_refused_with_what_would_run(
    configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(ValueError, match=r"has 2 GPUs; give trainer\.devices=1 \(at most 2\), or"):
        device_count(configure("trainer.devices=4"))
    assert device_count(configure("trainer.devices=2")) == 2
    assert precision_of(configure("trainer.devices=2")) == "bf16-mixed"


@pytest.mark.slow
def test_resume_auto_goes_on_with_the_newest_equal_run(
    folder: Path, cache: Path, tmp_path: Path
) -> None:
    data = ["data=folder", f"data.root={folder}", f"data_cache={cache}", *QUICK, "resume=auto"]
    fresh = run("train.py", *data, f"hydra.run.dir={tmp_path / 'a'}")
    assert "starting afresh" in fresh
    again = run("train.py", *data, f"hydra.run.dir={tmp_path / 'b'}")
    assert f"going on with {tmp_path / 'a'}" in again
    other = run("train.py", *data, "seed=1", f"hydra.run.dir={tmp_path / 'c'}")
    assert "it differs in data.seed: 0 → 1; seed: 0 → 1" in other and "starting afresh" in other


@pytest.mark.slow
def test_two_nodes_are_one_run(folder: Path, cache: Path, tmp_path: Path) -> None:
    """Two torchruns meet, as on two machines that share a disk; the oracle is one machine."""
    data = ["data=folder", f"data.root={folder}", f"data_cache={cache}", *QUICK, "weighting=static"]
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    launcher = [sys.executable, "-m", "torch.distributed.run"]
    meeting = ["--nnodes=2", "--master-addr=127.0.0.1", f"--master-port={port}"]
    job = ["--nproc-per-node=1", "train.py", *data, "trainer.devices=1", "trainer.num_nodes=2"]
    nodes = [
        subprocess.Popen(
            [*launcher, *meeting, f"--node-rank={rank}", *job, f"log_dir={tmp_path / 'nodes'}"],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in (0, 1)
    ]
    try:
        texts = [node.communicate(timeout=240)[0] for node in nodes]
    finally:
        for node in nodes:
            node.kill()
    assert [node.returncode for node in nodes] == [0, 0], texts[0][-2000:] + texts[1][-2000:]
    assert [text.count("run: ") for text in texts] == [1, 0]  # the first one speaks
    (results,) = (tmp_path / "nodes").glob("*/*/results.json")
    result = torchrun(*data, f"log_dir={tmp_path / 'one'}")
    assert result.returncode == 0, result.stderr[-3000:]
    (other,) = (tmp_path / "one").glob("*/*/results.json")
    states = [
        torch.load(path.parent / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
        for path in (results, other)
    ]
    assert states[0].keys() == states[1].keys()
    for name, value in states[0].items():
        assert torch.equal(value, states[1][name]), name
