"""Runs a study: check everything, skip what is finished, run the rest, compare."""

import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from polyqwen.app.commands.compare import compare
from polyqwen.app.report import write_again
from polyqwen.app.study.compose import compose_all, save_distinct
from polyqwen.app.study.plan import Job, Study
from polyqwen.app.study.run import Ended, Process, Stopped, last_line, run_all, run_jobs, say
from polyqwen.app.study.state import Lock, finished, write_manifest
from polyqwen.build.precheck import built
from polyqwen.config.errors import ConfigError
from polyqwen.config.nodes import check_nodes
from polyqwen.runs.run_folder import RunFolder

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
    say(
        f"study {study.name}: {len(study.variants)} variants × {len(study.seeds)} seeds, "
        f"{len(jobs) - len(waiting)} of {len(jobs)} runs finished, in {folder}"
    )
    errors: dict[Job, str] = {}
    try:
        _prepare([configurations[job] for job in waiting], study.jobs, folder, lock)
        run_jobs(waiting, len(jobs), study.jobs, lock, errors)
    except Stopped as stopped:
        write_manifest(folder, study, jobs, given, errors)
        done = sum(RunFolder(job.folder).finished for job in jobs)
        text = f"interrupted: {done} of {len(jobs)} runs finished; the same command goes on"
        print(text, file=sys.stderr, flush=True)
        raise SystemExit(128 + stopped.number) from None
    write_manifest(folder, study, jobs, given, errors)
    if len(errors) < len(jobs):
        compare([folder])
        write_again(folder)
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
            say("waiting for the runs of a study that was killed to end")
        told = True
        time.sleep(0.5)
    return lock


def _prepare(configurations: Sequence[DictConfig], jobs: int, folder: Path, lock: Lock) -> None:
    """Once, before runs begin side by side; a run alone does it itself."""
    if jobs == 1 or len(configurations) < 2:
        return
    files = save_distinct(configurations, folder / ".prepare")
    command = [sys.executable, "-m", "polyqwen.app.study.compose", *map(str, files)]
    ended: list[Ended] = []
    log = folder / "prepare.log"
    say("preparing the data")
    run_all([Process("data", command, log)], ended.append, 1, 1, [lock.descriptor])
    if ended[0].status:
        raise ValueError(f"the data cannot be prepared: {last_line(log)} (all of it: {log})")
