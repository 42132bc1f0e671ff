"""Writes files that are whole or not there, whenever the process or the machine dies."""

import contextlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

TEMPORARY = ".writing"  # ending of what is not whole


@contextmanager
def atomic_write(path: Path, durable: bool = False) -> Iterator[Path]:
    """A temporary path to write to, renamed to ``path`` at the end.

    The folder is made. The temporary file lies in it, as only a file of the same file system can be
    renamed: a temporary folder elsewhere (``TMPDIR``) would mean a copy, which a kill can cut
    short. Its name is random: machines that share a disk number their processes alike.

    Args:
        path: the file; what was there stays until the new one is whole.
        durable: contents and name are on the disk before this returns, for files that must outlive
            a crash of the machine. Without, a crash of the process alone does no harm.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid4().hex}{TEMPORARY}")
    try:
        yield temporary
        if durable:
            _sync(temporary)
        os.replace(temporary, path)
        if durable:
            _sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def write_bytes(path: Path, data: bytes) -> None:
    """Writes a file, whole or not at all."""
    with atomic_write(path) as temporary:
        temporary.write_bytes(data)


def write_text(path: Path, text: str) -> None:
    """Writes a text file as UTF-8, whole or not at all."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path: Path, value: Any) -> None:
    """Writes indented JSON with a newline at its end, whole or not at all."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def point(link: Path, target: str) -> None:
    """Makes ``link`` a symbolic link to its neighbor ``target``, in place of what was there."""
    with atomic_write(link) as temporary:
        temporary.symlink_to(target)
    _sync_folder(link.parent)


def adopt(source: Path, path: Path) -> None:
    """The same contents under another name: a second link where the file system has them."""
    with atomic_write(path, durable=True) as temporary:
        try:
            os.link(source, temporary)
        except OSError:  # another disk
            shutil.copyfile(source, temporary)


def sweep(folder: Path) -> list[Path]:
    """Removes what a killed process left half written; returns what it was."""
    left = sorted(folder.glob(f".*{TEMPORARY}"))
    for path in left:
        path.unlink(missing_ok=True)
    return left


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync_folder(folder: Path) -> None:
    with contextlib.suppress(OSError):  # some network disks know no such thing
        _sync(folder)
