"""Reads the folder of a run for its page; what is missing or damaged is left out."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from polyqwen.data.sampling import curriculum, staged
from polyqwen.data.sampling.curriculum import Curriculum
from polyqwen.report.gallery_file import read_galleries
from polyqwen.runs.history import Series, read_history
from polyqwen.runs.run_files import RunFiles
from polyqwen.runs.settings import flat_settings
from polyqwen.weighting.weight_update import read_updates

REPORT = "report"  # folder of what a run keeps for its page
GALLERIES_FILE = f"{REPORT}/galleries.json"
MOST_WARNINGS = 30
# By name, so that a configuration from elsewhere cannot have anything else called.
CURRICULA = {
    "polyqwen.data.sampling.curriculum.Curriculum": curriculum.Curriculum,
    "polyqwen.data.sampling.curriculum.two_phase": curriculum.two_phase,
    "polyqwen.data.sampling.staged.staged": staged.staged,
}
Mappings = dict[str, Any]


def read_run_files(folder: Path) -> RunFiles:
    """The run as its page needs it.

    Raises:
        ValueError: the folder is no run, or its configuration is damaged.
    """
    path = folder / "config.yaml"
    if not path.is_file():
        raise ValueError(f"{folder} is not the folder of a run: it has no config.yaml")
    try:
        cfg = OmegaConf.load(path)
        settings = flat_settings(cfg)
        plain: Any = OmegaConf.to_container(cfg, resolve=True)
        tasks = dict(plain["tasks"])
    except (OmegaConfBaseException, yaml.YAMLError, KeyError, TypeError, UnicodeError) as error:
        raise ValueError(f"{path} is not the configuration of a run, or is damaged") from error
    return RunFiles(
        folder=folder,
        settings=settings,
        overrides=_overrides(folder),
        tasks=list(tasks),
        curriculum=_curriculum(plain.get("curriculum"), tasks),
        results=read_json(folder / "results.json"),
        history=_history(folder / "csv" / "metrics.csv"),
        updates=read_updates(folder / REPORT / "weight_updates.jsonl"),
        galleries=read_galleries(folder / GALLERIES_FILE),
        evaluation=read_json(folder / "evaluation" / "metrics.json"),
        environment=read_json(folder / REPORT / "environment.json"),
        warnings=_warnings(folder),
    )


def read_json(path: Path) -> Mappings:
    """A mapping from a file; empty if it is not there or not one."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _overrides(folder: Path) -> list[str]:
    try:
        text = (folder / ".hydra" / "overrides.yaml").read_text(encoding="utf-8")
        return [str(item) for item in yaml.safe_load(text) or []]
    except (OSError, yaml.YAMLError, UnicodeError):
        return []


def _curriculum(node: Any, tasks: Mapping[str, Any]) -> Curriculum | None:
    try:
        given = dict(node)
        make: Any = CURRICULA[given.pop("_target_")]
        shares = {name: float(task.get("share", 1.0)) for name, task in tasks.items()}
        found: Curriculum = make(shares, **given)
        return found
    except (KeyError, TypeError, ValueError, AttributeError):
        return None


def _history(path: Path) -> dict[str, Series]:
    try:
        return read_history(path)
    except (OSError, ValueError):
        return {}


def _warnings(folder: Path) -> list[str]:
    """Lines of the log that warn, the last ones; each once."""
    log = folder / "train.log"
    if not log.is_file():
        return []
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    found = [line for line in lines if re.match(r"\S+( \S+)? (WARNING|ERROR|CRITICAL) ", line)]
    return list(dict.fromkeys(found))[-MOST_WARNINGS:]
