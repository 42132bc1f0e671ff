"""Checkpoint files under kills, rot and full disks; those of a run, newest and best."""

import json
import logging
import os
import pickle
import random
import resource
import signal
import subprocess
import time
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.soak import same
from polyqwen.atomic_files import TEMPORARY, atomic_write, sweep
from polyqwen.checkpoints.callbacks.keep import KeepLast
from polyqwen.checkpoints.checkpoint_io import VerifiedCheckpoints
from polyqwen.checkpoints.sidecar import (
    Contents,
    DamagedCheckpoint,
    read_sidecar,
    sidecar_path,
    verified,
    write_sidecar,
)
from tests.conftest import Configure
from tests.training.test_resume import DROPOUT, SHORT, fit

FORK = get_context("fork")


def save(path: Path, step: int = 1, size: int = 1000, **more: Any) -> Path:
    checkpoint = {"global_step": step, "state_dict": {"w": torch.full((size,), float(step))}}
    VerifiedCheckpoints().save_checkpoint({**checkpoint, **more}, path)
    return path


def load(path: Path) -> dict[str, Any]:
    return VerifiedCheckpoints().load_checkpoint(path)


def test_a_saved_checkpoint_is_described_by_its_sidecar(tmp_path: Path) -> None:
    path = save(tmp_path / "folder" / "a.ckpt", step=7, run={"version": "x"})
    sidecar = verified(path)
    assert (sidecar.step, sidecar.run, sidecar.before) == (7, {"version": "x"}, None)
    assert sidecar.contents.size == path.stat().st_size
    assert abs(sidecar.saved - time.time()) < 60
    assert torch.equal(load(path)["state_dict"]["w"], torch.full((1000,), 7.0))
    assert {p.name for p in path.parent.iterdir()} == {"a.ckpt", "a.ckpt.json"}


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def forget(path: Path) -> None:
    sidecar_path(path).unlink()


def garble(path: Path) -> None:
    sidecar_path(path).write_text('{"step": 3')


DAMAGES = {
    flip: "its SHA-256 is not the one",
    truncate: "bytes instead of",
    forget: "has no sidecar",
    garble: r"\.json is damaged",
}


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda f: f.__name__)
def test_damage_is_found(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    path = save(tmp_path / "a.ckpt")
    damage(path)
    with pytest.raises(DamagedCheckpoint, match=DAMAGES[damage]) as error:
        load(path)
    assert "a.ckpt" in str(error.value) and "resume=auto" in str(error.value)


def test_a_flipped_bit_would_pass_unnoticed_otherwise(tmp_path: Path) -> None:
    """Why there is a hash at all."""
    path = save(tmp_path / "a.ckpt")
    flip(path)
    weights = torch.load(path, weights_only=True)["state_dict"]["w"]
    assert not torch.equal(weights, torch.full((1000,), 1.0))


def test_between_two_renames_either_contents_are_right(tmp_path: Path) -> None:
    path = save(tmp_path / "a.ckpt", step=1)
    old, before = path.read_bytes(), read_sidecar(path).contents
    save(path, step=2)
    new = read_sidecar(path)
    write_sidecar(path, new._replace(before=before))  # announced, not replaced yet
    path.write_bytes(old)
    assert load(path)["global_step"] == 1
    save(path, step=3)  # by a run that goes on after such a kill
    assert read_sidecar(path).before is None and load(path)["global_step"] == 3
    write_sidecar(path, read_sidecar(path)._replace(before=Contents(1, "0")))
    assert load(path)["global_step"] == 3


def test_contents_are_on_the_disk_before_they_have_their_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a power cut leaves a file of zeros under a name that was whole before."""
    done: list[tuple[str, Path]] = []
    fsync, replace = os.fsync, os.replace

    def synced(descriptor: int) -> None:
        done.append(("fsync", Path(os.readlink(f"/proc/self/fd/{descriptor}"))))
        fsync(descriptor)

    def replaced(source: Path, target: Path) -> None:
        done.append(("rename", Path(source)))
        replace(source, target)
        done.append(("named", Path(target)))

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", replaced)
    path = save(tmp_path / "a.ckpt")
    for file in (path, sidecar_path(path)):
        named = done.index(("named", file))
        what, temporary = done[named - 1]
        assert what == "rename" and ("fsync", temporary) in done[:named]
        assert ("fsync", tmp_path) in done[named:]


class Payload:
    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, ("opened",)


def test_a_checkpoint_cannot_run_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = save(Path("a.ckpt"), payload=Payload())  # with a sidecar that fits
    with pytest.raises(ValueError, match="more than tensors and plain values"):
        load(path)
    assert not Path("opened").exists()
    pickle.loads(pickle.dumps(Payload()))  # it would have
    assert Path("opened").exists()


def test_a_full_disk_costs_nothing_that_was_there(tmp_path: Path) -> None:
    path = save(tmp_path / "a.ckpt", step=1)
    there = set(tmp_path.iterdir())

    def fill(queue: Any) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
        try:
            save(path, step=2, size=100_000)
        except OSError as error:
            queue.put(str(error))

    queue = FORK.Queue()
    child = FORK.Process(target=fill, args=(queue,))
    child.start()
    text = queue.get(timeout=30)
    child.join()
    assert "cannot save" in text and "needs 400,000 bytes" in text and "are free" in text
    assert load(path)["global_step"] == 1 and set(tmp_path.iterdir()) == there


def saving_for_ever(folder: Path) -> None:
    step = 0
    while True:
        step += 1
        save(folder / "best.ckpt", step, size=500_000)
        save(folder / f"last-{step % 3}.ckpt", step, size=500_000)


def kills(folder: Path, count: int) -> tuple[int, int]:
    """Kills a process that does nothing but save; how many files were whole, and unfinished."""
    draw, whole, unfinished = random.Random(0), 0, 0
    for _ in range(count):
        child = FORK.Process(target=saving_for_ever, args=(folder,))
        child.start()
        while not (folder / "last-2.ckpt.json").exists():
            time.sleep(0.005)
        time.sleep(draw.uniform(0.0, 0.15))
        assert child.pid is not None
        os.kill(child.pid, signal.SIGKILL)
        child.join()
        unfinished += len(sweep(folder))
        for sidecar in folder.glob("*.json"):
            weights = load(sidecar.with_suffix(""))
            assert (weights["state_dict"]["w"] == weights["global_step"]).all()
            whole += 1
    return whole, unfinished


def test_kills_while_saving_leave_no_file_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", "/dev/shm")  # another file system
    whole, unfinished = kills(tmp_path, 15)
    assert whole >= 15 * 3  # best.ckpt, replaced again and again, and some others
    assert unfinished > 3  # the kills did hit


@pytest.mark.slow
def test_a_hundred_kills_while_saving(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", "/dev/shm")
    whole, unfinished = kills(tmp_path, 100)
    assert whole >= 300 and unfinished > 20


def test_an_error_while_writing_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_text("old")
    with pytest.raises(RuntimeError), atomic_write(path) as temporary:
        temporary.write_bytes(b"new")
        raise RuntimeError
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_what_a_killed_process_left_is_swept(tmp_path: Path) -> None:
    left = tmp_path / f".a.ckpt.123{TEMPORARY}"
    left.write_text("half")
    path = save(tmp_path / "a.ckpt")
    assert sweep(tmp_path) == [left] and sweep(tmp_path / "nowhere") == []
    assert load(path)


KEEPING = [o for o in SHORT if not o.startswith(("callbacks.last", "callbacks.best"))]
EVERY = ("callbacks.last.every_n_train_steps=1", "callbacks.nonfinite.max_bad_steps=3")


def test_the_newest_are_kept(configure: Configure, tmp_path: Path) -> None:
    run = tmp_path / "a"
    fit(configure, run, *EVERY, "callbacks.last.keep=3", base=KEEPING)
    folder = run / "checkpoints"
    names = {"last-6", "last-7", "last-8", "best"}
    files = {f"{name}.ckpt{ending}" for name in names for ending in ("", ".json")}
    assert {p.name for p in folder.iterdir()} == {*files, "last.ckpt"}
    assert (folder / "last.ckpt").readlink() == Path("last-8.ckpt")
    assert verified(folder / "last.ckpt").step == 8
    record = read_sidecar(folder / "last.ckpt").run
    assert record["processes"] == 1 and record["data"]["text_pair/train"].startswith("64 rows ")
    with pytest.raises(ValueError, match=r"callbacks\.last\.keep must be at least 1"):
        KeepLast(str(tmp_path), 1, keep=0)


def test_the_best_is_remembered_in_another_folder(
    configure: Configure, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first, second, third = (tmp_path / name / "checkpoints" for name in "abc")
    options = (*EVERY, "callbacks.best.mode=min", "callbacks.last.keep=9")
    fit(configure, first.parent, *options, "callbacks.best.monitor=step", base=KEEPING)
    assert verified(first / "best.ckpt").step == 3  # the first validation, at the switch
    fit(
        configure,
        second.parent,
        *options,
        "callbacks.best.monitor=step",
        ckpt=first / "last-6.ckpt",
        base=KEEPING,
    )
    assert (second / "best.ckpt").read_bytes() == (first / "best.ckpt").read_bytes()
    assert verified(second / "best.ckpt").step == 3
    flip(second / "best.ckpt")
    with caplog.at_level(logging.WARNING):
        fit(
            configure,
            third.parent,
            *options,
            "callbacks.best.monitor=step",
            ckpt=second / "last-7.ckpt",
            base=KEEPING,
        )
    assert "is not taken over" in caplog.text and verified(third / "best.ckpt").step == 8


@pytest.mark.parametrize("where", ["last-4.ckpt", "last-6.ckpt", "best.ckpt"])
def test_a_resumed_run_ends_with_the_same_checkpoint(
    configure: Configure, tmp_path: Path, where: str
) -> None:
    """All of it: the states of callbacks, loops, random numbers; at 4 a validation was due."""
    best = ("callbacks.best.monitor=step", "callbacks.best.mode=min")  # stays at the switch
    options = (*EVERY, *best, "callbacks.last.keep=9", DROPOUT)
    fit(configure, tmp_path / "a", *options, base=KEEPING)
    start = tmp_path / "a" / "checkpoints" / where
    fit(configure, tmp_path / "b", *options, ckpt=start, base=KEEPING)
    ends = [load(tmp_path / run / "checkpoints" / "last-8.ckpt") for run in "ab"]
    assert len(ends[0]["callbacks"]) >= 5
    monitor = ends[0]["callbacks"]["ForgettingMonitor"]
    assert monitor["now"] is not None
    for end in ends:
        for state in end["callbacks"].values():
            for key in ("dirpath", "best_model_path", "kth_best_model_path", "best_k_models"):
                state.pop(key, None)
    for key in ends[0]:
        assert key == "loops" or same(ends[0][key], ends[1][key]), key


def killed_training(configure: Configure, run: Path, options: tuple[str, ...]) -> None:
    newest = run / "checkpoints" / "last.ckpt"
    fit(
        configure,
        run,
        *options,
        base=KEEPING,
        ckpt=newest if newest.exists() else None,
    )


def kill_and_resume(configure: Configure, tmp_path: Path, count: int) -> None:
    """Kills a training that saves at each step, at least so often; then compares its end."""
    through, run = tmp_path / "through", tmp_path / "killed"
    options = (*EVERY, DROPOUT)
    fit(configure, through, *options, base=KEEPING)
    draw, hits = random.Random(0), 0
    while hits < count:
        before = sorted((run / "checkpoints").glob("last-*.ckpt"))
        child = FORK.Process(target=killed_training, args=(configure, run, options))
        child.start()
        while child.is_alive() and sorted((run / "checkpoints").glob("last-*.ckpt")) == before:
            time.sleep(0.002)
        time.sleep(draw.uniform(0.0, 0.2))
        assert child.pid is not None
        if child.is_alive():
            os.kill(child.pid, signal.SIGKILL)
            hits += 1
        child.join()
        for sidecar in (run / "checkpoints").glob("*.json"):
            load(sidecar.with_suffix(""))
        if child.exitcode == 0 or verified(run / "checkpoints" / "last.ckpt").step == 8:
            ends = [load(folder / "checkpoints" / "last.ckpt") for folder in (through, run)]
            assert same(ends[0]["state_dict"], ends[1]["state_dict"])
            assert same(ends[0]["optimizer_states"], ends[1]["optimizer_states"])
            subprocess.run(["rm", "-r", str(run)], check=True)


def test_killed_trainings_go_on_exactly(
    configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", "/dev/shm")
    kill_and_resume(configure, tmp_path, 3)


@pytest.mark.slow
def test_fifty_killed_trainings_go_on_exactly(
    configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", "/dev/shm")
    kill_and_resume(configure, tmp_path, 50)


def test_the_sidecar_is_plain_json(tmp_path: Path) -> None:
    values = json.loads(sidecar_path(save(tmp_path / "a.ckpt")).read_text())
    assert set(values) == {"contents", "step", "saved", "run", "before"}
