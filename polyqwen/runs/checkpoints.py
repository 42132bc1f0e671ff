"""The checkpoints in a run's folder, looked at from the outside."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from polyqwen.checkpoints.sidecar import DamagedCheckpoint, Sidecar, read_sidecar, verified
from polyqwen.config.moved_targets import with_current_targets

log = logging.getLogger(__name__)


class CheckpointCandidate(NamedTuple):
    """A checkpoint that a run may resume from.

    Attributes:
        path: the file.
        sidecar: None if there is none, or a damaged one.
        problem: what is wrong then.
    """

    path: Path
    sidecar: Sidecar | None
    problem: str = ""

    @property
    def saved(self) -> float:
        """When, in seconds since 1970."""
        return self.path.stat().st_mtime if self.sidecar is None else self.sidecar.saved

    @property
    def settings(self) -> dict[str, Any]:
        """Of its run, by dotted key, targets by today's paths; empty without a sidecar."""
        run = {} if self.sidecar is None else self.sidecar.run
        return dict(with_current_targets(run.get("settings", {})))


def checkpoints_in(folder: Path) -> list[CheckpointCandidate]:
    """All checkpoints of a folder: the newest first, then ``best.ckpt``; links are passed over."""
    found = []
    for path in folder.glob("*.ckpt"):
        if path.is_symlink():
            continue
        try:
            found.append(CheckpointCandidate(path, read_sidecar(path)))
        except DamagedCheckpoint as error:
            found.append(CheckpointCandidate(path, None, error.what))
    return sorted(found, key=lambda c: (not c.path.name.startswith("last"), -c.saved))


def first_whole(candidates: Sequence[CheckpointCandidate]) -> CheckpointCandidate | None:
    """The first one that is what was saved; a warning names those before it.

    Each sidecar is read anew: a run that is still going on may have replaced both files.
    """
    damaged = []
    for path, *_ in candidates:
        try:
            found = CheckpointCandidate(path, verified(path))
        except DamagedCheckpoint as error:
            damaged.append(error.what)
            continue
        if damaged:
            log.warning("%s; using %s instead", "; ".join(damaged), path)
        return found
    if damaged:
        log.warning("no checkpoint to use: %s", "; ".join(damaged))
    return None
