"""Files that are whole or not there, for whoever reads them while they are written.

Those that must outlive a crash of the machine are written by `polyqwen.checkpoints.atomic_files`.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4


@contextmanager
def written(path: Path) -> Iterator[Path]:
    """A temporary path to write to, renamed to ``path`` at the end; the folder is made.

    Its name is random: machines that share a disk number their processes alike.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid4().hex}.tmp")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Writes a text file, as UTF-8."""
    with written(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
