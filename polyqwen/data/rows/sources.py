"""Where the rows of each task and split come from: a folder of files, or the hub."""

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from polyqwen.data.rows.arrow import ArrowReader, HubReader, ParquetReader
from polyqwen.data.rows.jsonl import JsonlReader
from polyqwen.data.rows.types import Reader

READERS: dict[str, Callable[[Path], Reader]] = {
    ".jsonl": JsonlReader,
    ".parquet": ParquetReader,
    ".arrow": ArrowReader,
}


class Source(Protocol):
    """Finds the reader of a task's split."""

    root: Path  # pictures are given relative to it, unless data.root says otherwise

    def reader(self, task: str, split: str) -> Reader:
        """The rows of a split; ValueError if it has none."""
        ...


class FolderSource:
    """``root/<task>/<split>`` as ``.jsonl``, ``.parquet``, ``.arrow`` or a folder of one of them.

    Args:
        root: the folder.

    Raises:
        ValueError: when the folder, a task or a split is missing.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root).expanduser()
        if not self.root.is_dir():
            raise ValueError(f"data.root={root} is not a folder")

    def reader(self, task: str, split: str) -> Reader:
        """See `Source.reader`."""
        folder = self.root / task
        for ending, reader in READERS.items():
            if (folder / f"{split}{ending}").exists():
                return reader(folder / f"{split}{ending}")
        if (folder / split).is_dir():
            parquet = any((folder / split).glob("*.parquet"))
            return ParquetReader(folder / split) if parquet else ArrowReader(folder / split)
        raise ValueError(
            f"task {task} has no {split} split: expected {folder / split} with one of the endings "
            f"{', '.join(READERS)}"
        )


class GeneratedSource(FolderSource):
    """The data set that polyqwen draws itself; made on first use and kept.

    Args:
        root: folder that keeps it.
        seed: another seed is another data set.
        train_rows: rows of each task to train on.
        eval_rows: rows of each task in ``dev`` and in ``test``.
    """

    def __init__(
        self, root: str | Path, *, seed: int = 0, train_rows: int = 4000, eval_rows: int = 400
    ) -> None:
        from polyqwen.data.generated import generate

        folder = self._folder(root, seed, train_rows, eval_rows)
        super().__init__(generate(folder, seed=seed, train_rows=train_rows, eval_rows=eval_rows))

    @classmethod
    def is_made(
        cls, root: str | Path, *, seed: int = 0, train_rows: int = 4000, eval_rows: int = 400
    ) -> bool:
        """Whether the data set of these arguments is there already."""
        from polyqwen.data.generated import is_generated

        folder = cls._folder(root, seed, train_rows, eval_rows)
        return is_generated(folder, seed=seed, train_rows=train_rows, eval_rows=eval_rows)

    @staticmethod
    def _folder(root: str | Path, seed: int, train_rows: int, eval_rows: int) -> Path:
        return Path(root) / f"seed{seed}-{train_rows}-{eval_rows}"


class HubSource:
    """One hub data set for each task.

    Args:
        datasets: task → {name, config, revision}.
        splits: our split names → the hub's, such as ``dev: validation``.
    """

    root = Path()

    def __init__(
        self,
        datasets: dict[str, dict[str, str | None]],
        splits: dict[str, str] | None = None,
    ) -> None:
        self.datasets = datasets
        self.splits = splits or {}

    def reader(self, task: str, split: str) -> Reader:
        """See `Source.reader`."""
        if task not in self.datasets:
            raise ValueError(
                f"data.source.datasets names no hub data set for task {task}; "
                f"it has {', '.join(self.datasets) or 'none'}"
            )
        entry = self.datasets[task]
        return HubReader(
            str(entry["name"]),
            self.splits.get(split, split),
            config=entry.get("config"),
            revision=entry.get("revision"),
        )
