"""Reads one run from its own files."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from polyqwen.runs.folders import Found
from polyqwen.runs.hyperparameters import is_compared
from polyqwen.runs.identity import comparable_settings
from polyqwen.runs.leaderboard_runs import RunRecord

NOT_BEGUN = "not begun"
UNCOMPARED = ("seed", "name", "data.cache", "process_group_timeout")


class Run(NamedTuple):
    """A finished run with what was chosen for it.

    Attributes:
        found: where, and which variant of a study.
        record: its results.
        settings: every value that makes an experiment another one, by its dotted key.
        overrides: those of them that the command line gave, as typed there.
    """

    found: Found
    record: RunRecord
    settings: dict[str, Any]
    overrides: dict[str, str]


class Unfinished(NamedTuple):
    """A run without results, and why."""

    found: Found
    why: str


def read_run(found: Found) -> Run | Unfinished:
    """The run, or why it does not count."""
    folder = found.folder
    path = folder / "results.json"
    if not path.is_file():
        begun = (folder / "config.yaml").is_file()
        why = "no results.json: interrupted or still running" if begun else NOT_BEGUN
        return Unfinished(found, found.note or why)
    try:
        results = json.loads(path.read_text(encoding="utf-8"))
        config = OmegaConf.load(folder / "config.yaml")
        settings = comparable_settings(config, Path(str(config.run_dir)))  # it may have been moved
        record = _record(folder, found, results, settings)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return Unfinished(found, f"its files are damaged: {str(error).splitlines()[0][:100]}")
    except (OmegaConfBaseException, yaml.YAMLError):
        return Unfinished(found, "its config.yaml is damaged")
    compared = {k: v for k, v in settings.items() if is_compared(k) and k not in UNCOMPARED}
    return Run(found, record, compared, _overrides(folder))


def _record(
    folder: Path, found: Found, results: dict[str, Any], settings: dict[str, Any]
) -> RunRecord:
    history = folder / "csv" / "metrics.csv"
    forgetting = results.get("forgetting") or {}
    return RunRecord(
        folder=folder,
        seed=int(settings["seed"]) if found.seed is None else found.seed,
        trained={view: dict(metrics) for view, metrics in results["trained"].items()},
        untrained=results.get("untrained") or {},
        chance=results.get("chance") or {},
        timing=results.get("timing") or {},
        forgetting={k: float(v) for k, v in forgetting.items() if k in ("at_switch", "end")},
        history=history if history.is_file() else None,
    )


def _overrides(folder: Path) -> dict[str, str]:
    """Key -> value as typed, without what makes no other experiment."""
    path = folder / ".hydra" / "overrides.yaml"
    try:
        given = yaml.safe_load(path.read_text(encoding="utf-8")) or []
    except (OSError, yaml.YAMLError):
        return {}
    pairs = [str(item).lstrip("+").partition("=")[::2] for item in given]
    return {k: v for k, v in pairs if is_compared(k) and k not in UNCOMPARED}
