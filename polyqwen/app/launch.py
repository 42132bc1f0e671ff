"""Several processes on this machine: one command, every rank with the same configuration."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from polyqwen.app.signals import last_words
from polyqwen.atomic_files import write_text

HANDED_ON = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
INTERRUPTED = tuple(128 + number for number in HANDED_ON)  # exit statuses
RUN = 1  # exit status of a run that failed
PATIENCE = 2.0  # seconds for a rank that failed to end by itself
GRACE = 5.0  # seconds between asking processes to end and ending them


def launch(cfg: DictConfig, processes: int) -> None:
    """Runs the job in `processes` processes of this machine and waits for them.

    They read the resolved configuration from the run's folder, so that a sweep or a random value
    in it is the same for all, and they are gone before the next job begins. If one fails, the
    others are ended and its exit status becomes ours. Signals are handed on to all of them.
    """
    folder = Path(cfg.run_dir)
    folder.mkdir(parents=True, exist_ok=True)
    config = folder / "config.yaml"
    write_text(config, OmegaConf.to_yaml(cfg, resolve=True))
    threads = str(max(1, (os.cpu_count() or 1) // processes))
    shared = {
        "OMP_NUM_THREADS": threads,
        **os.environ,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(_free_port()),
        "WORLD_SIZE": str(processes),
        "NODE_RANK": "0",
    }
    for old in folder.glob(error_file("*")):
        old.unlink()
    children: list[subprocess.Popen[bytes]] = []
    with _signals_handed_on(children):
        for rank in range(processes):
            log = None if rank == 0 else (folder / f"rank_{rank}.log").open("w", encoding="utf-8")
            children.append(
                subprocess.Popen(
                    [sys.executable, "-m", "polyqwen.app.worker", str(config)],
                    env={**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
                    stdout=log,
                    stderr=log,
                    process_group=0,  # Ctrl-C reaches us alone; we hand it on, once
                )
            )
            if log:
                log.close()
        status, caught = _wait(children, folder)
        first = _first_to_fail(folder, children)
        said = first == 0 and (children[0].returncode or 0) > 0  # by itself, on the terminal
    if status:
        if status in INTERRUPTED:
            if not caught:
                print(last_words(status - 128, folder), file=sys.stderr)
        elif not said:
            _say_last(folder, first)
        raise SystemExit(status)


@contextmanager
def _signals_handed_on(children: list[subprocess.Popen[bytes]]) -> Iterator[None]:
    """Lets the children decide how to end when we are asked to; none of them is left over."""
    before = {number: signal.getsignal(number) for number in HANDED_ON}

    def hand_on(number: int, frame: object) -> None:
        for child in children:
            child.send_signal(number)

    for number, handler in before.items():
        if handler is not signal.SIG_IGN:
            signal.signal(number, hand_on)
    try:
        yield
    finally:
        end_processes(children)
        for number, handler in before.items():
            signal.signal(number, handler)


def _wait(children: list[subprocess.Popen[bytes]], folder: Path) -> tuple[int, bool]:
    """Exit status of the first process that failed, or 0 when all are done.

    A rank that has noted down an error is not waited for longer than `PATIENCE`: it may hang where
    it would take leave of the others.

    The second says whether the process ended by itself, and so had its say.
    """
    noted: float | None = None
    while True:
        codes = [child.poll() for child in children]
        failed = [code for code in codes if code]
        if failed:
            code = failed[0]
            return (code, True) if code > 0 else (128 - code, False)
        if all(code == 0 for code in codes):
            return 0, True
        if noted is None and any(folder.glob(error_file("*"))):
            noted = time.monotonic()
        if noted is not None and time.monotonic() - noted > PATIENCE:
            return RUN, False
        time.sleep(0.1)


def _first_to_fail(folder: Path, children: list[subprocess.Popen[bytes]]) -> int:
    """The rank whose failure made the others fail.

    A rank that loses another one fails as well, and may end before it. One that was killed cannot
    have been waiting; of the others, the first that wrote what went wrong.
    """
    for rank, child in enumerate(children):
        if child.returncode is not None and child.returncode < 0:
            return rank
    errors = {rank: folder / error_file(rank) for rank in range(len(children))}
    written = [rank for rank, path in errors.items() if path.is_file()]
    if written:
        return min(written, key=lambda rank: errors[rank].stat().st_mtime_ns)
    return next((rank for rank, child in enumerate(children) if child.returncode), 0)


def end_processes(children: list[subprocess.Popen[bytes]]) -> None:
    """Asks the processes still running to end, and ends those that do not."""
    for child in children:
        if child.poll() is None:
            child.send_signal(signal.SIGTERM)
    until = time.monotonic() + GRACE
    for child in children:
        try:
            child.wait(max(0.0, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def error_file(rank: object) -> str:
    """Where a rank writes in the run's folder what went wrong, as soon as it does."""
    return f"rank_{rank}.error"


def _say_last(folder: Path, rank: int) -> None:
    """What went wrong first, below all that other ranks had to say about it."""
    path, log = folder / error_file(rank), folder / f"rank_{rank}.log"
    if path.is_file():
        text = path.read_text(encoding="utf-8")
    elif rank:
        lines = log.read_text(encoding="utf-8", errors="replace").split("\n")
        text = next((line for line in reversed(lines) if line.strip()), "without a word")
    else:
        text = "without a word"
    where = f" (all of it: {log})" if rank else ""
    print(f"error: rank {rank} failed: {text}{where}", file=sys.stderr)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
