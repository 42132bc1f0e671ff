"""Finds the checkpoint to go on with."""

import logging
from pathlib import Path
from typing import Any, NamedTuple

from omegaconf import DictConfig

from polyqwen.checkpoints.settings_diff import differences, listed, plain
from polyqwen.checkpoints.sidecar import DamagedCheckpoint, Sidecar, read_sidecar, verified
from polyqwen.config.errors import ConfigError
from polyqwen.config.moved_targets import with_current_targets
from polyqwen.runs.identity import run_settings

log = logging.getLogger(__name__)
ALLOWED = ("config", "data")


class Candidate(NamedTuple):
    """A checkpoint of a run, looked at from the outside.

    Attributes:
        path: the file.
        sidecar: None without a whole one.
        trouble: then what is wrong.
    """

    path: Path
    sidecar: Sidecar | None
    trouble: str


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
    if choice == "auto":
        found = _newest_equal(Path(cfg.run_dir), run_settings_of(cfg, processes))
    else:
        found = _named(Path(choice))
        if "config" not in cfg.resume_allow:
            _check_settings(found, run_settings_of(cfg, processes))
    cfg.ckpt_path = None if found is None else str(found)


def run_settings_of(cfg: DictConfig, processes: int) -> dict[str, Any]:
    """As a checkpoint keeps them."""
    return plain(run_settings(cfg, processes))


def _named(path: Path) -> Path:
    """The checkpoint that a path means."""
    if path.is_file():
        verified(path)
        return path
    candidates = candidates_of(path)
    if not candidates:
        raise ConfigError("resume", f"{path} is no checkpoint and no folder of a run with some")
    found = _newest_whole(candidates)
    if found is None:
        troubles = ", ".join(candidate.path.name for candidate in candidates)
        raise ConfigError("resume", f"no checkpoint of {path} is whole, of {troubles}")
    return found


def _check_settings(checkpoint: Path, wanted: dict[str, Any]) -> None:
    changed = differences(_settings_of(read_sidecar(checkpoint)), wanted)
    if changed:
        raise ConfigError(
            "resume",
            f"the run of {checkpoint} had another configuration: {listed(changed)}",
            "take its values, or go on with resume_allow=[config]",
        )


def _settings_of(sidecar: Sidecar) -> dict[str, Any]:
    """Of the checkpoint's run, its targets by today's paths."""
    settings: dict[str, Any] = with_current_targets(sidecar.run.get("settings", {}))
    return settings


def _newest_equal(own: Path, wanted: dict[str, Any]) -> Path | None:
    """The newest whole checkpoint of the newest equal run; None, and a line, if there is none."""
    runs = [candidates_of(p.parent) for p in own.parent.glob("*/checkpoints") if p.is_dir()]
    for candidates in sorted(filter(None, runs), key=_age):
        known = [_settings_of(c.sidecar) for c in candidates if c.sidecar is not None]
        folder = candidates[0].path.parents[1]
        if not known:
            log.warning("not going on with %s: %s", folder, candidates[0].trouble)
        elif changed := differences(known[0], wanted):
            log.info("not going on with %s: it differs in %s", folder, listed(changed))
        elif (found := _newest_whole(candidates)) is not None:
            log.info("going on with %s", found)
            return found
    log.info("resume=auto: no equal run under %s, starting afresh", own.parent)
    return None


def candidates_of(run: Path) -> list[Candidate]:
    """Checkpoints of a run: the newest first, the best one behind them, then unfinished ones."""
    found = []
    for path in (run / "checkpoints").glob("*.ckpt"):
        if path.is_symlink():
            continue
        try:
            found.append(Candidate(path, read_sidecar(path), ""))
        except DamagedCheckpoint as error:
            found.append(Candidate(path, None, error.what))
    return sorted(found, key=_rank)


def _rank(candidate: Candidate) -> tuple[bool, float]:
    best = not candidate.path.name.startswith("last")
    return best, -_saved(candidate)


def _saved(candidate: Candidate) -> float:
    if candidate.sidecar is None:
        return candidate.path.stat().st_mtime
    return candidate.sidecar.saved


def _age(candidates: list[Candidate]) -> float:
    return -max(map(_saved, candidates))


def _newest_whole(candidates: list[Candidate]) -> Path | None:
    """The first one that is what was saved; a warning names those before it."""
    damaged = []
    for candidate in candidates:
        try:
            verified(candidate.path)
        except DamagedCheckpoint as error:
            damaged.append(error.what)
            continue
        if damaged:
            log.warning("%s; using %s instead", "; ".join(damaged), candidate.path)
        return candidate.path
    if damaged:
        log.warning("no checkpoint to use: %s", "; ".join(damaged))
    return None
