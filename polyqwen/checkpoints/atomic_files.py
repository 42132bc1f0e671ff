"""Files that are whole or not there, whenever the process or the machine dies."""

import contextlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO
from uuid import uuid4

TEMPORARY = ".writing"  # ending of what is not whole


@contextmanager
def replaced(path: Path) -> Iterator[BinaryIO]:
    """A file to write to that takes the place of ``path`` at the end.

    It lies in the folder of ``path``, as only a file of the same file system can be renamed: a
    temporary folder elsewhere (``TMPDIR``) would mean a copy, which a kill can cut short. Contents
    and name are on the disk before this returns.
    """
    temporary = _beside(path)
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        _sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def point(link: Path, target: str) -> None:
    """Makes ``link`` a symbolic link to its neighbour ``target``, in place of what was there."""
    temporary = _beside(link)
    try:
        temporary.symlink_to(target)
        os.replace(temporary, link)
        _sync(link.parent)
    finally:
        temporary.unlink(missing_ok=True)


def adopt(source: Path, path: Path) -> None:
    """The same contents under another name: a second link where the file system has them."""
    temporary = _beside(path)
    try:
        os.link(source, temporary)
    except OSError:  # another disk
        with source.open("rb") as old, replaced(path) as new:
            while chunk := old.read(1 << 20):
                new.write(chunk)
        return
    try:
        os.replace(temporary, path)
        _sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def sweep(folder: Path) -> list[Path]:
    """Removes what a killed process left half written; returns what it was."""
    left = sorted(folder.glob(f".*{TEMPORARY}"))
    for path in left:
        path.unlink(missing_ok=True)
    return left


def _beside(path: Path) -> Path:
    return path.with_name(f".{path.name}.{uuid4().hex}{TEMPORARY}")


def _sync(folder: Path) -> None:
    with contextlib.suppress(OSError):  # some network disks know no such thing
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
