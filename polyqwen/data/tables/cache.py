"""What is worked out once of a prepared table and kept beside its file: no run reads it all again.

A table's file is named by everything it depends on, so what lies beside it never goes stale.
"""

import hashlib
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset
from numpy.typing import NDArray

from polyqwen.atomic_files import atomic_write, write_text


def file_of(table: Dataset) -> Path | None:
    """The Arrow file that holds a table's rows and no others; None if there is no such file."""
    files = table.cache_files
    if len(files) != 1 or table._indices is not None:
        return None
    return Path(files[0]["filename"])


def kept_json(table: Dataset, name: str, make: Callable[[], Any]) -> Any:
    """What ``make`` returns, plain values, from ``<table>.<name>.json`` if it was made before."""
    file = file_of(table)
    if file is None:
        return make()
    path = file.with_suffix(f".{name}.json")
    if not path.exists():
        write_text(path, json.dumps(make(), ensure_ascii=False))
    return json.loads(path.read_text(encoding="utf-8"))


def kept_array(table: Dataset, name: str, make: Callable[[], NDArray[Any]]) -> NDArray[Any]:
    """As `kept_json` for an array, in ``<table>.<name>.npy``; memory-mapped, read-only."""
    file = file_of(table)
    if file is None:
        return make()
    path = file.with_suffix(f".{name}.npy")
    if not path.exists():
        with atomic_write(path) as temporary, temporary.open("wb") as opened:
            np.save(opened, make())
    return np.load(path, mmap_mode="r")


def fingerprint(table: Dataset) -> str:
    """Rows and hash of the prepared rows, read once: moved or copied data stays the same."""
    hashes = []
    for file in table.cache_files:
        path = Path(file["filename"])
        hashes.append(kept_json(Dataset.from_file(str(path)), "hash", partial(_hash, path)))
    return f"{len(table)} rows {' '.join(hashes)}"


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=8)).hexdigest()
