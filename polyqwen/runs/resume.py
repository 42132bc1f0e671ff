"""Finds the checkpoint to go on with."""

import logging
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from polyqwen.checkpoints.sidecar import differences, listed, plain, verified
from polyqwen.config.errors import ConfigError
from polyqwen.config.identity import recipe_changes, run_settings
from polyqwen.runs.checkpoints import CheckpointCandidate, first_whole
from polyqwen.runs.run_folder import RunFolder

log = logging.getLogger(__name__)
ALLOWED = ("config", "data")


def resume(cfg: DictConfig, processes: int) -> None:
    """Sets ``ckpt_path`` as ``resume`` says; any checkpoint named is verified.

    ``auto`` takes the newest whole checkpoint of an equal run: this run's folder and those beside
    it. A run is equal if its settings are (`run_settings`); what differs in another one is said.
    A path names a run's folder, for its newest whole checkpoint, or a checkpoint.

    Args:
        cfg: the composed configuration.
        processes: of the run, on all machines together.

    Raises:
        ConfigError: the path holds nothing whole to go on with, or its run had other settings and
            ``resume_allow`` has no ``config``.
        DamagedCheckpoint: the checkpoint named is damaged.
    """
    choice = cfg.resume
    if unknown := sorted(set(cfg.resume_allow) - set(ALLOWED)):
        raise ConfigError("resume_allow", f"may hold {', '.join(ALLOWED)}, got {unknown}")
    if choice == "off":
        if cfg.ckpt_path:
            verified(Path(cfg.ckpt_path))
        return
    if cfg.ckpt_path:
        raise ConfigError("resume", f"{choice} and ckpt_path= are given", "choose one of them")
    wanted = run_settings_of(cfg, processes)
    if choice == "auto":
        found = _newest_equal(Path(cfg.run_dir), wanted)
    else:
        found = _named(Path(choice))
        if "config" not in cfg.resume_allow:
            _check_same_recipe(found, wanted)
    cfg.ckpt_path = None if found is None else str(found.path)


def _check_same_recipe(found: CheckpointCandidate, wanted: dict[str, Any]) -> None:
    """Refuses to go on where settings differ, or mean something else than when they were saved."""
    if since := recipe_changes(found.settings):
        raise ConfigError(
            "resume",
            f"the run of {found.path} was saved before the recipe changed its meaning: {since}",
            "start afresh, or go on with resume_allow=[config]",
        )
    if changed := differences(found.settings, wanted):
        raise ConfigError(
            "resume",
            f"the run of {found.path} had another configuration: {listed(changed)}",
            "take its values, or go on with resume_allow=[config]",
        )


def run_settings_of(cfg: DictConfig, processes: int) -> dict[str, Any]:
    """As a checkpoint keeps them."""
    return plain(run_settings(cfg, processes))


def _named(path: Path) -> CheckpointCandidate:
    """The checkpoint that a path means."""
    if path.is_file():
        return CheckpointCandidate(path, verified(path))
    candidates = RunFolder(path).checkpoints
    if not candidates:
        raise ConfigError("resume", f"{path} is no checkpoint and no folder of a run with some")
    found = first_whole(candidates)
    if found is None:
        names = ", ".join(candidate.path.name for candidate in candidates)
        raise ConfigError("resume", f"no checkpoint of {path} is whole, of {names}")
    return found


def _newest_equal(own: Path, wanted: dict[str, Any]) -> CheckpointCandidate | None:
    """The newest whole checkpoint of the newest equal run; None, and a line, if there is none."""
    runs = [RunFolder(p.parent) for p in own.parent.glob("*/checkpoints") if p.is_dir()]
    for run in sorted((run for run in runs if run.checkpoints), key=_last_saved, reverse=True):
        known = next((c for c in run.checkpoints if c.sidecar is not None), None)
        if known is None:
            log.warning("not going on with %s: %s", run.path, run.checkpoints[0].problem)
        elif since := recipe_changes(known.settings):
            log.info("not going on with %s: saved before the recipe changed: %s", run.path, since)
        elif changed := differences(known.settings, wanted):
            log.info("not going on with %s: it differs in %s", run.path, listed(changed))
        elif (found := first_whole(run.checkpoints)) is not None:
            log.info("going on with %s", found.path)
            return found
    log.info("resume=auto: no equal run under %s, starting afresh", own.parent)
    return None


def _last_saved(run: RunFolder) -> float:
    return max(checkpoint.saved for checkpoint in run.checkpoints)
