"""How Lightning writes and reads checkpoints here: at once or not at all, checked when read."""

import errno
import hashlib
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, BinaryIO, cast

import torch
from lightning.pytorch.plugins.io import CheckpointIO
from torch import Tensor
from torch.utils._pytree import tree_leaves

from polyqwen.atomic_files import atomic_write
from polyqwen.checkpoints.sidecar import (
    RUN,
    Contents,
    DamagedCheckpoint,
    Sidecar,
    hash_of,
    read_sidecar,
    sidecar_path,
    verified,
    write_sidecar,
)

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # disk, quota, ulimit


class VerifiedCheckpoints(CheckpointIO):
    """Saves through a temporary file in the same folder, then writes the sidecar.

    A kill at any moment leaves the old file, the new one, or a new one without a sidecar, which
    counts as not there. A file that takes the place of another of the same name is announced in the
    old one's sidecar first, so that there is no moment without a usable file.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None
    ) -> None:
        """Writes tensors and plain Python values.

        Raises:
            OSError: the disk is full, with the bytes needed and free; what was there is untouched.
        """
        path = Path(path)
        before = _contents(path)
        with _room(path, checkpoint), atomic_write(path, durable=True) as temporary:
            with temporary.open("wb") as file:
                writer = _Hashing(file)
                try:
                    torch.save(checkpoint, cast(BinaryIO, writer))
                except RuntimeError as error:  # torch's complaint about the write that failed
                    raise writer.failure or error from error
            new = Sidecar(
                writer.contents(),
                int(checkpoint.get("global_step", 0)),
                time.time(),
                checkpoint.get(RUN) or {},
            )
            if before is not None:
                write_sidecar(path, new._replace(before=before))
        with _room(path, checkpoint):
            write_sidecar(path, new)

    def load_checkpoint(
        self,
        path: str | Path,
        map_location: Any = lambda storage, _: storage,
        weights_only: bool | None = True,
    ) -> dict[str, Any]:
        """Reads a file that is what was saved; never anything that could run code.

        Raises:
            DamagedCheckpoint: naming the file.
            ValueError: it holds objects, which could run code when they are made.
        """
        verified(Path(path))
        try:
            return torch.load(path, map_location=map_location, weights_only=True)
        except UnpicklingError as error:
            raise ValueError(
                f"{path} holds more than tensors and plain values and is not read; use a "
                "checkpoint that this program saved"
            ) from error

    def remove_checkpoint(self, path: str | Path) -> None:
        """Removes a checkpoint: the sidecar first, without which the file counts as not there."""
        sidecar_path(Path(path)).unlink(missing_ok=True)
        Path(path).unlink(missing_ok=True)


def _contents(path: Path) -> Contents | None:
    """Of a whole file that is to be replaced; None if there is none."""
    try:
        if path.is_symlink() or not path.is_file():
            return None
        sidecar = read_sidecar(path)
        if sidecar.before is None:  # rot since then does no harm: it will match neither
            return sidecar.contents
        verified(path)
    except DamagedCheckpoint:
        return None
    return Contents(path.stat().st_size, hash_of(path))


class _Hashing:
    """A file that is hashed as it is written; it remembers why a write failed."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._hash, self._size = file, hashlib.sha256(), 0
        self.failure: OSError | None = None

    def write(self, data: bytes) -> int:
        try:
            written = self._file.write(data)
        except OSError as error:
            self.failure = error
            raise
        self._hash.update(data)
        self._size += written
        return written

    def flush(self) -> None:
        self._file.flush()

    def contents(self) -> Contents:
        return Contents(self._size, self._hash.hexdigest())


@contextmanager
def _room(path: Path, checkpoint: dict[str, Any]) -> Iterator[None]:
    """Turns the error of a full disk into one line."""
    try:
        yield
    except OSError as error:
        if error.errno not in FULL:
            raise
        needed = sum(x.nbytes for x in tree_leaves(checkpoint) if isinstance(x, Tensor))
        free = shutil.disk_usage(path.parent).free
        raise OSError(
            f"cannot save {path}: {error.strerror}; it needs {needed:,} bytes, {free:,} are free; "
            "checkpoints saved before are untouched: make room, then go on with resume=auto"
        ) from error
