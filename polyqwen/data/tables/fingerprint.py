"""Whether a prepared table is the one of before."""

import hashlib
from functools import partial
from pathlib import Path

from datasets import Dataset

from polyqwen.data.tables.cache import kept_json


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
