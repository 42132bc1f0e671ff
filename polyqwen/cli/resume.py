"""Finds the run to go on with."""

import logging
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from polyqwen.cli.settings import flat_settings

log = logging.getLogger(__name__)
# what may differ between a run and the one that goes on with it
OWN = ("run_dir", "ckpt_path", "resume", "metadata")


def resume(cfg: DictConfig) -> None:
    """With ``resume=auto``, sets ``ckpt_path`` to the newest checkpoint of an equal run.

    Looks in the folders beside the run's own. A run is equal if its saved configuration is, but for
    its folder and notes; what differs in the newest other one is said.

    Raises:
        ValueError: for any other word, or together with ``ckpt_path``.
    """
    if cfg.resume is None:
        return
    if cfg.resume != "auto":
        raise ValueError(f"resume={cfg.resume}: only auto; a checkpoint's path goes to ckpt_path=")
    if cfg.ckpt_path:
        raise ValueError("resume=auto and ckpt_path= are given; choose one of them")
    own = Path(cfg.run_dir)
    found = [p for p in own.parent.glob("*/checkpoints/last.ckpt") if p.parents[1] != own]
    wanted = comparable_settings(cfg, own)
    for path in sorted(found, key=lambda p: p.stat().st_mtime, reverse=True):
        saved = path.parents[1] / "config.yaml"
        other = (
            comparable_settings(OmegaConf.load(saved), path.parents[1]) if saved.is_file() else {}
        )
        changed = sorted(k for k in wanted.keys() | other.keys() if wanted.get(k) != other.get(k))
        if not changed:
            cfg.ckpt_path = str(path)
            log.info("going on with %s", path)
            return
        log.info("not going on with %s: it differs in %s", path.parents[1], ", ".join(changed[:6]))
    log.info("resume=auto: no equal run under %s, starting afresh", own.parent)


def comparable_settings(cfg: Any, folder: Path) -> dict[str, Any]:
    """What makes runs equal; the run's own folder is left out of paths."""
    flat = {k: v for k, v in flat_settings(cfg).items() if k.split(".")[0] not in OWN}
    return {k: v.replace(str(folder), "") if isinstance(v, str) else v for k, v in flat.items()}
