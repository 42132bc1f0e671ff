"""Process launcher: one command starts every rank on this machine, as torchrun would.

torch's own launcher (``torch.distributed.launcher.api``, 2.13) is not used: of ranks that fail
within the same second it names the one that ended first, it gives a hung rank 30 s after another
one failed, waits for a rank that hangs as it ends, and opens a rank's log twice.
"""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from polyqwen.app.signals import FORWARDED, handled_by, interrupt_message
from polyqwen.atomic_files import write_text

INTERRUPTED = tuple(128 + number for number in FORWARDED)  # exit statuses
RUN = 1  # exit status of a run that failed
PATIENCE = 2.0  # seconds for a rank that failed to end by itself
GRACE = 5.0  # seconds between asking processes to end and ending them
WORKER = ("-m", "polyqwen.app.worker")  # one rank; the configuration's file follows
LAUNCHER = "POLYQWEN_LAUNCHER"  # process number of the launcher, for its ranks


def launch(cfg: DictConfig, processes: int) -> None:
    """Runs the job in `processes` processes of this machine and waits for them.

    They read the resolved configuration from the run's folder, so that a sweep or a random value
    in it is the same for all, and they are gone before the next job begins. If one fails, the
    others are ended and its exit status becomes ours. Signals are forwarded to all of them; on
    Linux they get SIGTERM when this process is killed (`end_with_parent`).

    Raises:
        SystemExit: with the exit status of the first rank that failed, 128 + signal if killed.
    """
    folder = Path(cfg.run_dir)
    config = folder / "config.yaml"
    write_text(config, OmegaConf.to_yaml(cfg, resolve=True))
    for old in folder.glob(error_file("*")):
        old.unlink()
    shared = {
        "OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // processes)),
        **os.environ,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(_free_port()),
        "WORLD_SIZE": str(processes),
        "NODE_RANK": "0",
        LAUNCHER: str(os.getpid()),
    }
    ranks: list[subprocess.Popen[bytes]] = []

    def forward(number: int, frame: object) -> None:
        for process in ranks:
            process.send_signal(number)

    with handled_by(forward, FORWARDED):  # the ranks decide how to end
        try:
            for rank in range(processes):
                environment = {**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)}
                ranks.append(_start(config, environment, rank))
            status, caught = _wait(ranks, folder)
            first = _first_to_fail(ranks, folder)
            said = first == 0 and (ranks[0].returncode or 0) > 0  # on the terminal, by itself
        finally:
            end_processes(ranks)
    if status in INTERRUPTED:
        if not caught:
            print(interrupt_message(status - 128, folder), file=sys.stderr)
    elif status and not said:
        print(f"error: rank {first} failed: {_error_of(first, folder)}", file=sys.stderr)
    if status:
        raise SystemExit(status)


def _start(config: Path, environment: dict[str, str], rank: int) -> "subprocess.Popen[bytes]":
    """One rank, in a process group of its own: Ctrl-C reaches us alone, and we forward it once."""
    command = [sys.executable, *WORKER, str(config)]
    if rank == 0:
        return subprocess.Popen(command, env=environment, process_group=0)
    with _log_file(config.parent, rank).open("wb") as log:
        return subprocess.Popen(command, env=environment, stdout=log, stderr=log, process_group=0)


def _wait(ranks: Sequence["subprocess.Popen[bytes]"], folder: Path) -> tuple[int, bool]:
    """Exit status of the first process that failed, or 0 when all are done.

    A rank that has written its error file is not waited for longer than `PATIENCE`: it may hang in
    a last collective, or as the interpreter ends.

    The second value says whether the process ended by itself, and so has printed its message.
    """
    noted: float | None = None
    while True:
        codes = [process.poll() for process in ranks]
        if failed := [code for code in codes if code]:
            return (failed[0], True) if failed[0] > 0 else (128 - failed[0], False)
        if all(code == 0 for code in codes):
            return 0, True
        if noted is None and any(folder.glob(error_file("*"))):
            noted = time.monotonic()
        if noted is not None and time.monotonic() - noted > PATIENCE:
            return RUN, False
        time.sleep(0.1)


def _first_to_fail(ranks: Sequence["subprocess.Popen[bytes]"], folder: Path) -> int:
    """The rank whose failure made the others fail.

    A rank that loses another one fails as well, and may end before it. One that was killed cannot
    have been waiting; of the others, the first that wrote what went wrong.
    """
    if killed := [rank for rank, process in enumerate(ranks) if (process.returncode or 0) < 0]:
        return killed[0]
    errors = {rank: folder / error_file(rank) for rank in range(len(ranks))}
    if written := [rank for rank, path in errors.items() if path.is_file()]:
        return min(written, key=lambda rank: errors[rank].stat().st_mtime_ns)
    return next((rank for rank, process in enumerate(ranks) if process.returncode), 0)


def _error_of(rank: int, folder: Path) -> str:
    """What the rank wrote when it failed, else its last line, and where its log is."""
    path, log = folder / error_file(rank), _log_file(folder, rank)
    lines: list[str] = []
    if path.is_file():
        lines = [path.read_text(encoding="utf-8")]
    elif rank:
        lines = log.read_text(encoding="utf-8", errors="replace").split("\n")
    text = next((line for line in reversed(lines) if line.strip()), "without a word")
    return f"{text} (all of it: {log})" if rank else text


def end_processes(processes: Sequence["subprocess.Popen[bytes]"]) -> None:
    """Sends SIGTERM to the processes that still run, and SIGKILL `GRACE` seconds later."""
    for process in processes:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
    until = time.monotonic() + GRACE
    for process in processes:
        try:
            process.wait(max(0.0, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def error_file(rank: object) -> str:
    """Where a rank writes in the run's folder what went wrong, as soon as it does."""
    return f"rank_{rank}.error"


def _log_file(folder: Path, rank: int) -> Path:
    return folder / f"rank_{rank}.log"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
