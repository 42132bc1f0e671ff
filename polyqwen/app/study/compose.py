"""Composes and checks every run of a study, and prepares their data, before the first one starts.

``python -m polyqwen.app.study.compose CONFIG…`` prepares the data. Runs that begin together would
make the same tables side by side. That is safe, since each writes under a name of its own and
renames, but it is done twice.
"""

import os
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from polyqwen.app.entry import FULL, compose_train, errors_of_the_run
from polyqwen.app.study.plan import Job
from polyqwen.atomic_files import write_text
from polyqwen.config.errors import ConfigError


def compose_all(
    jobs: Sequence[Job], precheck: Callable[[dict[str, Any]], None]
) -> dict[Job, DictConfig]:
    """The configuration of every run.

    Runs of one variant differ in seed and folder only, so a variant is composed and checked once.

    Raises:
        ConfigError: naming the variant that cannot be run.
    """
    composed: dict[str, DictConfig] = {}
    configurations = {}
    for job in jobs:
        if job.variant not in composed:
            try:
                cfg, values = compose_train([*job.overrides, folder_override(job)])
                precheck(values)
            except ConfigError as error:
                raise ConfigError(f"study.variants.{job.variant}", str(error)) from error
            composed[job.variant] = cfg
        cfg = composed[job.variant].copy()
        cfg.seed, cfg.run_dir = job.seed, str(job.folder)
        configurations[job] = cfg
    return configurations


def folder_override(job: Job) -> str:
    """``run_dir='…'``, quoted for the grammar of overrides."""
    return f"run_dir={quoted(str(job.folder))}"


def quoted(text: str) -> str:
    """A value that may hold any character."""
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def save_distinct(configurations: Iterable[DictConfig], folder: Path) -> list[Path]:
    """Saves one configuration for each data set that the runs need; returns the files."""
    seen: dict[str, Path] = {}
    for cfg in configurations:
        key = OmegaConf.to_yaml(_shared(cfg))
        if key not in seen:
            seen[key] = folder / f"{len(seen)}.yaml"
            write_text(seen[key], OmegaConf.to_yaml(cfg, resolve=True))
    return list(seen.values())


def _shared(cfg: DictConfig) -> Any:
    """The settings that the prepared tables depend on."""
    plain: Any = OmegaConf.to_container(cfg, resolve=True)
    tasks = {name: {**task, "share": None} for name, task in plain["tasks"].items()}
    names = ("source", "min_visual_tokens", "max_visual_tokens", "bad_rows", "cache")
    data = {key: plain["data"].get(key) for key in names}
    return OmegaConf.create({"tasks": tasks, "data": data, "tokens": plain["model"]["tokens"]})


def main() -> None:
    """Prepares the data of all configurations named on the command line."""
    with errors_of_the_run(os.environ.get(FULL) == "1"):
        from polyqwen.build.instantiate import make

        for path in sys.argv[1:]:
            cfg = OmegaConf.load(path)
            tasks = {name: make(node) for name, node in cfg.tasks.items()}
            prefixes = {name: task.prefix for name, task in tasks.items()}
            make(
                cfg.data,
                tasks=tasks,
                tokens=make(cfg.model.tokens, prefixes=prefixes),
                curriculum=make(cfg.curriculum, {name: t.share for name, t in tasks.items()}),
            ).prepare_data()


if __name__ == "__main__":
    main()
