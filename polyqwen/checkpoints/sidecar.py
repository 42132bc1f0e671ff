"""What is known of a checkpoint without reading it: ``NAME.ckpt.json`` beside ``NAME.ckpt``.

Only a file with the size and SHA-256 of its sidecar is used: neither torch nor safetensors notices
a flipped bit. The sidecar is written last, so that a checkpoint without one is not finished.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from polyqwen.atomic_files import atomic_write

WAY_OUT = "name another checkpoint of the run, or let resume=auto take the newest whole one"
RUN = "run"  # key in a checkpoint of what it tells of its run
LAST = "last.ckpt"  # of a run's checkpoints
SHOWN = 6  # differences in a message


class DamagedCheckpoint(ValueError):
    """A checkpoint that is not what was saved.

    Args:
        what: the file and what is wrong with it.
    """

    def __init__(self, what: str) -> None:
        super().__init__(f"{what}; {WAY_OUT}")
        self.what = what


class Contents(NamedTuple):
    """What a file must hold."""

    size: int
    sha256: str


class Sidecar(NamedTuple):
    """Of one checkpoint.

    Attributes:
        contents: the file's.
        step: optimizer steps it comes after.
        saved: when, in seconds since 1970.
        run: settings, data, number of processes and version; see `RunRecord`.
        before: contents that the file had before, while it is being replaced: between the two
            renames either is right.
    """

    contents: Contents
    step: int
    saved: float
    run: Mapping[str, Any]
    before: Contents | None = None


def sidecar_path(checkpoint: Path) -> Path:
    """Beside the file itself, also for a link to it such as ``last.ckpt``."""
    whole = checkpoint.resolve()
    return whole.with_name(f"{whole.name}.json")


def write_sidecar(checkpoint: Path, sidecar: Sidecar) -> None:
    """Writes it, at once or not at all."""
    values = {
        **sidecar._asdict(),
        "contents": sidecar.contents._asdict(),
        "before": sidecar.before and sidecar.before._asdict(),
    }
    with atomic_write(sidecar_path(checkpoint), durable=True) as temporary:
        temporary.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")


def read_sidecar(checkpoint: Path) -> Sidecar:
    """What the sidecar says.

    Raises:
        DamagedCheckpoint: there is none, or it is damaged itself.
    """
    path = sidecar_path(checkpoint)
    try:
        values = json.loads(path.read_bytes())
        before = values["before"]
        return Sidecar(
            Contents(**values["contents"]),
            int(values["step"]),
            float(values["saved"]),
            dict(values["run"]),
            before and Contents(**before),
        )
    except FileNotFoundError:
        raise DamagedCheckpoint(
            f"{checkpoint} has no sidecar {path.name}: its save was not finished, or it was copied "
            "without"
        ) from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DamagedCheckpoint(f"{path} is damaged") from error


def verified(checkpoint: Path) -> Sidecar:
    """The sidecar of a checkpoint whose contents were compared with it.

    Raises:
        DamagedCheckpoint: naming the file and what is wrong with it.
        ValueError: there is no such file.
    """
    if not checkpoint.is_file():
        raise ValueError(f"there is no checkpoint {checkpoint}")
    sidecar = read_sidecar(checkpoint)
    allowed = [c for c in (sidecar.contents, sidecar.before) if c is not None]
    size = checkpoint.stat().st_size
    if size not in [contents.size for contents in allowed]:
        raise DamagedCheckpoint(
            f"{checkpoint} is damaged: {size} bytes instead of {sidecar.contents.size}"
        )
    if Contents(size, hash_of(checkpoint)) not in allowed:
        raise DamagedCheckpoint(
            f"{checkpoint} is damaged: its SHA-256 is not the one of its sidecar"
        )
    return sidecar


def hash_of(path: Path) -> str:
    """SHA-256 of a file, about a second per GB; this process reads the same file only once."""
    status = os.stat(path)
    return _hash(path.resolve(), status.st_ino, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=8)
def _hash(path: Path, *_version: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """As they come back from a JSON file."""
    loaded: dict[str, Any] = json.loads(json.dumps(values, default=str))
    return loaded


def differences(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """``key: then → now`` of every value that changed; – stands for none."""
    return [
        f"{key}: {_shown(then.get(key, '–'))} → {_shown(now.get(key, '–'))}"
        for key in sorted(then.keys() | now.keys())
        if then.get(key, "–") != now.get(key, "–")
    ]


def listed(changes: list[str]) -> str:
    """The first ones, and how many more there are."""
    more = f" and {len(changes) - SHOWN} more" if len(changes) > SHOWN else ""
    return "; ".join(changes[:SHOWN]) + more


def _shown(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}…"
