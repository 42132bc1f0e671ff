"""Arrow files and folders written by `datasets`, memory-mapped."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from polyqwen.data.readers.base import Record, existing, file_fingerprint

if TYPE_CHECKING:
    from datasets import Dataset


class ArrowReader:
    """Rows of an ``.arrow`` file, or of a folder made by ``Dataset.save_to_disk``.

    Args:
        path: the file or folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = existing(Path(path))

    def _dataset(self) -> "Dataset":
        from datasets import Dataset, load_from_disk  # heavy, and not needed for other files

        try:
            if not self.path.is_dir():
                return Dataset.from_file(str(self.path))
            dataset = load_from_disk(str(self.path))
        except (OSError, ValueError) as error:  # pyarrow's ArrowInvalid is a ValueError
            raise ValueError(f"{self.path} is not an Arrow file: {error}") from error
        if not isinstance(dataset, Dataset):
            raise ValueError(f"{self.path} holds several splits; point at one of its folders")
        return dataset

    def __iter__(self) -> Iterator[tuple[str, Record]]:
        for number, record in enumerate(self._dataset()):
            yield f"{self.path}, row {number}", dict(record)

    def __str__(self) -> str:
        return str(self.path)

    def fingerprint(self) -> str:
        """See `Reader.fingerprint`."""
        paths = sorted(self.path.rglob("*.arrow")) if self.path.is_dir() else [self.path]
        return file_fingerprint(paths)
