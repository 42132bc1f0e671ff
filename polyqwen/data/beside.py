"""What is worked out once of a prepared table and kept beside its file: no run reads it all again.

A table's file is named by everything it depends on, so what lies beside it never goes stale.
"""

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
from datasets import Dataset
from numpy.typing import NDArray


def file_of(table: Dataset) -> Path | None:
    """The Arrow file that holds a table's rows and no others; None if there is no such file."""
    files = table.cache_files
    if len(files) != 1 or table._indices is not None:
        return None
    return Path(files[0]["filename"])


@contextmanager
def written(path: Path) -> Iterator[Path]:
    """A temporary path to write to, renamed to ``path`` at the end: it is whole or not there.

    Its name is random: machines that share a disk number their processes alike.
    """
    temporary = path.with_name(f"{path.name}.{uuid4().hex}.tmp")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def kept_json(table: Dataset, name: str, make: Callable[[], Any]) -> Any:
    """What ``make`` returns, plain values, from ``<table>.<name>.json`` if it was made before."""
    file = file_of(table)
    if file is None:
        return make()
    path = file.with_suffix(f".{name}.json")
    if not path.exists():
        with written(path) as temporary:
            temporary.write_text(json.dumps(make(), ensure_ascii=False), encoding="utf-8")
    return json.loads(path.read_text(encoding="utf-8"))


def kept_array(table: Dataset, name: str, make: Callable[[], NDArray[Any]]) -> NDArray[Any]:
    """As `kept_json` for an array, in ``<table>.<name>.npy``; memory-mapped, read-only."""
    file = file_of(table)
    if file is None:
        return make()
    path = file.with_suffix(f".{name}.npy")
    if not path.exists():
        with written(path) as temporary, temporary.open("wb") as opened:
            np.save(opened, make())
    return np.load(path, mmap_mode="r")
