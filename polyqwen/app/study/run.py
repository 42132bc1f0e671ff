"""The runs of a study: processes of train.py, some at a time; none outlives this one."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple, NoReturn

from hydra.core.hydra_config import HydraConfig

from polyqwen.app.launch import end_processes
from polyqwen.app.signals import FORWARDED, end_with_parent, handled_by
from polyqwen.app.study.compose import folder_override, quoted
from polyqwen.app.study.plan import Job
from polyqwen.app.study.state import Lock, clear
from polyqwen.config.conf import CONF
from polyqwen.runs.run_folder import RunFolder

_SCRIPT = CONF.parent / "train.py"  # a checkout's, which is found from any working folder
TRAIN = [str(_SCRIPT)] if _SCRIPT.is_file() else ["-m", "polyqwen", "train"]
LOG = "output.log"  # of a run, in its folder
POLL = 0.2  # seconds


class Stopped(BaseException):
    """A signal asks this process to end; not an `Exception`, so that nothing takes it for one."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class Process(NamedTuple):
    """A process to be run."""

    name: str
    command: Sequence[str]
    log: Path  # file for its output


class Ended(NamedTuple):
    """A process that has ended."""

    process: Process
    status: int
    seconds: float


def run_jobs(
    jobs: Sequence[Job], total: int, at_a_time: int, lock: Lock, errors: dict[Job, str]
) -> None:
    """Runs what is left, a line for each that ends; failures go into `errors`."""
    by_name = {job.name: job for job in jobs}
    start = time.monotonic()
    done: list[Job] = []

    def report(ended: Ended) -> None:
        job = by_name[ended.process.name]
        done.append(job)
        left = len(jobs) - len(done)
        run = RunFolder(job.folder, job.variant, job.seed)
        if ended.status == 0 and not run.problem:
            outcome = f"score {run.score(run.tested_tasks):.3f}"
        else:
            errors[job] = f"exit status {ended.status}: {last_line(job.folder / LOG)}"
            outcome = f"FAILED, {errors[job]} (all of it: {job.folder / LOG})"
        each = (time.monotonic() - start) / len(done)
        wait = f", about {_duration(each * left)}" if left else ""
        number = total - left
        say(f"[{number}/{total}] {job.name}: {outcome}, {ended.seconds:.0f} s; {left} left{wait}")

    for job in jobs:
        clear(job.folder)  # an interrupted run starts afresh
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    threads = max(1, (cores or 1) // at_a_time)
    run_all([_process(job) for job in jobs], report, at_a_time, threads, [lock.descriptor])


def _process(job: Job) -> Process:
    sources = HydraConfig.get().runtime.config_sources
    given = [f"--config-dir={s.path}" for s in sources if s.provider == "command-line"]
    folder = [folder_override(job), f"hydra.run.dir={quoted(str(job.folder))}"]
    command = [sys.executable, *TRAIN, *given, *job.overrides, *folder]
    return Process(job.name, command, job.folder / LOG)


def last_line(log: Path) -> str:
    """What a process said last."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    return next((line.strip() for line in reversed(lines) if line.strip()), "without a word")[:300]


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min"


def say(text: str) -> None:
    """A line at once, also into a pipe."""
    print(text, flush=True)


def run_all(
    processes: Sequence[Process],
    ended: Callable[[Ended], None],
    at_a_time: int,
    threads: int,
    kept: Sequence[int] = (),
) -> None:
    """Runs all processes; when this is left early, those still running are ended.

    Args:
        processes: what to run, in this order.
        ended: called as each one ends.
        at_a_time: processes at a time, >= 1.
        threads: OMP_NUM_THREADS of each, unless the environment has one.
        kept: file descriptors that the processes inherit.

    Raises:
        Stopped: on SIGINT, SIGTERM or SIGHUP, once the processes have ended.
    """
    waiting = list(processes)
    running: list[tuple[Process, subprocess.Popen[bytes], float]] = []
    environment = {"OMP_NUM_THREADS": str(threads), **os.environ}
    with handled_by(_stop, FORWARDED):
        try:
            while waiting or running:
                while waiting and len(running) < at_a_time:
                    process = waiting.pop(0)
                    popen = _start(process, environment, kept)
                    running.append((process, popen, time.monotonic()))
                for entry in list(running):
                    process, popen, start = entry
                    if popen.poll() is not None:
                        running.remove(entry)
                        ended(Ended(process, popen.returncode, time.monotonic() - start))
                time.sleep(POLL)
        finally:
            end_processes([popen for _, popen, _ in running])


def _start(
    process: Process, environment: dict[str, str], kept: Sequence[int]
) -> "subprocess.Popen[bytes]":
    process.log.parent.mkdir(parents=True, exist_ok=True)
    with process.log.open("wb") as log:
        return subprocess.Popen(
            process.command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            process_group=0,  # Ctrl-C reaches us alone
            pass_fds=kept,
            preexec_fn=partial(end_with_parent, os.getpid()),
        )


def _stop(number: int, frame: object) -> NoReturn:
    for other in FORWARDED:  # once is enough
        signal.signal(other, signal.SIG_IGN)
    raise Stopped(number)
