"""Runs a study: check everything, skip what is finished, run the rest, compare."""

import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from polyqwen.cli.compare.command import compare
from polyqwen.cli.compare.folders import Found
from polyqwen.cli.compare.reading import Run, read_run
from polyqwen.cli.strict.errors import ConfigError
from polyqwen.cli.strict.light import built
from polyqwen.cli.strict.nodes import check_nodes
from polyqwen.cli.strict.toplevel import CONF
from polyqwen.cli.study.composing import compose_all, folder_override, quoted
from polyqwen.cli.study.plan import Job, Study
from polyqwen.cli.study.pool import Ended, Stopped, Task, run_all
from polyqwen.cli.study.prepare import distinct
from polyqwen.cli.study.state import Lock, clear, finished, read_results, write_manifest
from polyqwen.reporting.leaderboard.runs import score

TRAIN = CONF.parent / "train.py"
LOG = "output.log"  # of a run, in its folder
PATIENCE = 20.0  # seconds for the runs of a killed study to end


def run_study(cfg: DictConfig, precheck: Callable[[dict[str, Any]], None]) -> None:
    """Trains what is not finished yet and writes the leaderboard.

    Args:
        cfg: as composed; its ``study`` node is read, the rest is composed anew for every run.
        precheck: applied to every run's resolved configuration.

    Raises:
        ValueError: a run cannot be composed, or a folder holds another configuration.
        SystemExit: 1 if a run failed, 128 + signal if interrupted.
    """
    study = _read(cfg)
    folder = (Path(cfg.log_dir) / study.folder).absolute()
    given: Any = OmegaConf.to_container(HydraConfig.get().overrides.task, resolve=False)
    jobs = study.plan(folder, given)
    configurations = compose_all(jobs, precheck)
    folder.mkdir(parents=True, exist_ok=True)
    lock = _locked(folder)
    waiting = [job for job in jobs if not finished(job, configurations[job])]
    write_manifest(folder, study, jobs, given, {})
    _say(
        f"study {study.name}: {len(study.variants)} variants × {len(study.seeds)} seeds, "
        f"{len(jobs) - len(waiting)} of {len(jobs)} runs finished, in {folder}"
    )
    errors: dict[Job, str] = {}
    try:
        _prepare([configurations[job] for job in waiting], study.jobs, folder, lock)
        _run(waiting, len(jobs), study.jobs, lock, errors)
    except Stopped as stopped:
        done = sum(read_results(job.folder) is not None for job in jobs)
        text = f"interrupted: {done} of {len(jobs)} runs finished; the same command goes on"
        print(text, file=sys.stderr, flush=True)
        raise SystemExit(128 + stopped.number) from None
    write_manifest(folder, study, jobs, given, errors)
    if len(errors) < len(jobs):
        compare([folder])
    if errors:
        failed = ", ".join(job.name for job in errors)
        raise ValueError(f"{len(errors)} of {len(jobs)} runs failed: {failed}")


def _read(cfg: DictConfig) -> Study:
    if HydraConfig.get().mode == RunMode.MULTIRUN:
        raise ConfigError("study", "is a sweep of its own", "leave out -m")
    node: Any = OmegaConf.to_container(cfg.study, resolve=False)
    if "_target_" not in node:
        raise ConfigError("study", "is not chosen", "use study=NAME")
    node["folder"] = cfg.study.folder
    check_nodes({"study": node})
    study = built("study", node)
    assert isinstance(study, Study)
    return study


def _locked(folder: Path) -> Lock:
    lock = Lock(folder)
    until = time.monotonic() + PATIENCE
    told = False
    while not lock.take():
        if time.monotonic() > until:
            raise ValueError(f"{folder} is in use by another process; wait for it, or end it")
        if not told:
            _say("waiting for the runs of a study that was killed to end")
        told = True
        time.sleep(0.5)
    return lock


def _prepare(configurations: Sequence[DictConfig], jobs: int, folder: Path, lock: Lock) -> None:
    """Once, before runs begin side by side; a run alone does it itself."""
    if jobs == 1 or len(configurations) < 2:
        return
    files = distinct(configurations, folder / ".prepare")
    command = [sys.executable, "-m", "polyqwen.cli.study.prepare", *map(str, files)]
    ended: list[Ended] = []
    log = folder / "prepare.log"
    _say("preparing the data")
    run_all([Task("data", command, log)], ended.append, 1, 1, [lock.descriptor])
    if ended[0].status:
        raise ValueError(f"the data cannot be prepared: {_last_line(log)} (all of it: {log})")


def _run(
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
        result = read_run(Found(job.folder, job.variant, job.seed))
        if ended.status == 0 and isinstance(result, Run):
            outcome = f"score {score(result.record, result.record.tasks):.3f}"
        else:
            errors[job] = f"exit status {ended.status}: {_last_line(job.folder / LOG)}"
            outcome = f"FAILED, {errors[job]} (all of it: {job.folder / LOG})"
        each = (time.monotonic() - start) / len(done)
        wait = f", about {_duration(each * left)}" if left else ""
        number = total - left
        _say(f"[{number}/{total}] {job.name}: {outcome}, {ended.seconds:.0f} s; {left} left{wait}")

    for job in jobs:
        clear(job.folder)  # an interrupted run starts afresh
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    threads = max(1, (cores or 1) // at_a_time)
    run_all([_task(job) for job in jobs], report, at_a_time, threads, [lock.descriptor])


def _task(job: Job) -> Task:
    sources = HydraConfig.get().runtime.config_sources
    given = [f"--config-dir={s.path}" for s in sources if s.provider == "command-line"]
    folder = [folder_override(job), f"hydra.run.dir={quoted(str(job.folder))}"]
    command = [sys.executable, str(TRAIN), *given, *job.overrides, *folder]
    return Task(job.name, command, job.folder / LOG)


def _last_line(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    return next((line.strip() for line in reversed(lines) if line.strip()), "without a word")[:300]


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min"


def _say(text: str) -> None:
    print(text, flush=True)
