"""Arrow files and folders written by `datasets`, memory-mapped."""

from collections.abc import Iterator
from pathlib import Path

from datasets import Dataset, load_from_disk

from polyqwen.data.readers.base import Record, existing, file_fingerprint


class ArrowReader:
    """Rows of an ``.arrow`` file, or of a folder made by ``Dataset.save_to_disk``.

    Args:
        path: the file or folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = existing(Path(path))

    def _dataset(self) -> Dataset:
        if self.path.is_dir():
            dataset = load_from_disk(str(self.path))
            if not isinstance(dataset, Dataset):
                raise ValueError(f"{self.path} holds several splits; point at one of its folders")
            return dataset
        return Dataset.from_file(str(self.path))

    def __iter__(self) -> Iterator[tuple[str, Record]]:
        for number, record in enumerate(self._dataset()):
            yield f"{self.path}, row {number}", dict(record)

    def fingerprint(self) -> str:
        """See `Reader.fingerprint`."""
        paths = sorted(self.path.rglob("*.arrow")) if self.path.is_dir() else [self.path]
        return file_fingerprint(paths)
