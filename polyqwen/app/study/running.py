"""The runs of a study: each a process of train.py, a line for each that ends."""

import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from hydra.core.hydra_config import HydraConfig

from polyqwen.app.study.compose import folder_override, quoted
from polyqwen.app.study.plan import Job
from polyqwen.app.study.run import Ended, Task, run_all
from polyqwen.app.study.state import Lock, clear
from polyqwen.config.conf import CONF
from polyqwen.runs.run_folder import RunFolder
from polyqwen.runs.scores import score

_SCRIPT = CONF.parent / "train.py"  # a checkout's, which is found from any working folder
TRAIN = [str(_SCRIPT)] if _SCRIPT.is_file() else ["-m", "polyqwen", "train"]
LOG = "output.log"  # of a run, in its folder


def run_jobs(
    jobs: Sequence[Job], total: int, at_a_time: int, lock: Lock, errors: dict[Job, str]
) -> None:
    """Runs what is left, a line for each that ends; failures go into `errors`."""
    by_name = {job.name: job for job in jobs}
    start = time.monotonic()
    done: list[Job] = []

    def report(ended: Ended) -> None:
        job = by_name[ended.task.name]
        done.append(job)
        left = len(jobs) - len(done)
        run = RunFolder(job.folder, job.variant, job.seed)
        if ended.status == 0 and not run.problem:
            outcome = f"score {score(run, run.tested_tasks):.3f}"
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
    run_all([_task(job) for job in jobs], report, at_a_time, threads, [lock.descriptor])


def _task(job: Job) -> Task:
    sources = HydraConfig.get().runtime.config_sources
    given = [f"--config-dir={s.path}" for s in sources if s.provider == "command-line"]
    folder = [folder_override(job), f"hydra.run.dir={quoted(str(job.folder))}"]
    command = [sys.executable, *TRAIN, *given, *job.overrides, *folder]
    return Task(job.name, command, job.folder / LOG)


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
