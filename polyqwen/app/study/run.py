"""Runs processes, some at a time; none outlives this one."""

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, NoReturn

from polyqwen.app.launch import HANDED_ON, end_processes

POLL = 0.2  # seconds
_DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


class Stopped(BaseException):
    """A signal asks this process to end; not an `Exception`, so that nothing takes it for one."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class Task(NamedTuple):
    """A process to be run."""

    name: str
    command: Sequence[str]
    log: Path  # file for its output


class Ended(NamedTuple):
    """A process that has ended."""

    task: Task
    status: int
    seconds: float


def run_all(
    tasks: Sequence[Task],
    ended: Callable[[Ended], None],
    at_a_time: int,
    threads: int,
    kept: Sequence[int] = (),
) -> None:
    """Runs all tasks; when this is left early, those still running are ended.

    Args:
        tasks: what to run, in this order.
        ended: called as each one ends.
        at_a_time: processes at a time, >= 1.
        threads: OMP_NUM_THREADS of each, unless the environment has one.
        kept: file descriptors that the processes inherit.

    Raises:
        Stopped: on SIGINT, SIGTERM or SIGHUP, once the processes have ended.
    """
    waiting = list(tasks)
    running: list[tuple[Task, subprocess.Popen[bytes], float]] = []
    environment = {"OMP_NUM_THREADS": str(threads), **os.environ}
    with _stopped_by_signals():
        try:
            while waiting or running:
                while waiting and len(running) < at_a_time:
                    task = waiting.pop(0)
                    process = _start(task, environment, kept)
                    running.append((task, process, time.monotonic()))
                for entry in list(running):
                    task, process, start = entry
                    if process.poll() is not None:
                        running.remove(entry)
                        ended(Ended(task, process.returncode, time.monotonic() - start))
                time.sleep(POLL)
        finally:
            end_processes([process for _, process, _ in running])


def _start(
    task: Task, environment: dict[str, str], kept: Sequence[int]
) -> "subprocess.Popen[bytes]":
    task.log.parent.mkdir(parents=True, exist_ok=True)
    with task.log.open("wb") as log:
        return subprocess.Popen(
            task.command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            process_group=0,  # Ctrl-C reaches us alone
            pass_fds=kept,
            preexec_fn=_die_with_parent,
        )


def _die_with_parent() -> None:
    """Linux: a run whose study was killed is asked to end; elsewhere the lock tells of it."""
    if _LIBC is not None:
        _LIBC.prctl(_DIE_WITH_PARENT, signal.SIGTERM)


@contextmanager
def _stopped_by_signals() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in HANDED_ON}

    def stop(number: int, frame: object) -> NoReturn:
        for other in HANDED_ON:  # once is enough
            signal.signal(other, signal.SIG_IGN)
        raise Stopped(number)

    for number, handler in before.items():
        if handler is not signal.SIG_IGN:
            signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
