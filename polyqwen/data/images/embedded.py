"""Pictures that lie in the rows themselves, as those of most hub data sets do."""

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from polyqwen.atomic_files import write_bytes
from polyqwen.data.images.files import MAX_BYTES
from polyqwen.data.rows.types import PictureError

FOLDER = "pictures"  # of the data's cache
NAME = re.compile(r"embedded:([0-9a-f]{2})([0-9a-f]{38}\.[a-z]{3,4})")
ENDINGS = {b"\xff\xd8": ".jpg", b"\x89PNG": ".png", b"RIFF": ".webp"}  # as the bytes begin


class PictureStore:
    """Keeps bytes as files named by what they hold, so that equal pictures are one.

    From then on such a picture is like any other: opened late, by each loader process for itself.

    Args:
        folder: made when the first picture is kept.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def keep(self, data: bytes) -> str:
        """The name of a picture: ``embedded:``, 40 hexadecimal digits and an ending.

        Raises:
            PictureError: it is larger than a picture's file may be.
        """
        if len(data) > MAX_BYTES:
            what = f"the row's picture has {len(data):,} bytes, more than {MAX_BYTES:,}"
            raise PictureError(what, "too large")
        ending = next((e for begin, e in ENDINGS.items() if data.startswith(begin)), ".bin")
        name = f"embedded:{hashlib.blake2b(data, digest_size=20).hexdigest()}{ending}"
        path = self._path(name)
        if not path.exists():
            write_bytes(path, data)
        return name

    def find(self, name: str) -> Path | None:
        """The file of a name that `keep` gave; None for any other name.

        Raises:
            PictureError: the file is gone.
        """
        if not NAME.fullmatch(name):
            return None
        path = self._path(name)
        if not path.is_file():
            raise PictureError(
                f"{path}, a picture taken out of a data file, is gone; remove the tables beside "
                f"{self.folder} too, and all is prepared again",
                "missing",
            )
        return path

    def _path(self, name: str) -> Path:
        found = NAME.fullmatch(name)
        assert found is not None
        return self.folder / found[1] / found[2]


def picture_of(cell: Any) -> Any:
    """The bytes or the path in a cell like ``{"bytes": …, "path": …}``; any other as it is."""
    if isinstance(cell, Mapping) and "path" in cell and set(cell) <= {"bytes", "path"}:
        return cell["path"] if cell.get("bytes") is None else cell["bytes"]
    return cell
