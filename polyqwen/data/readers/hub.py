"""Data sets of the Hugging Face hub."""

from collections.abc import Iterator

from polyqwen.data.readers.base import Record


class HubReader:
    """Rows of one split of a hub data set (downloaded once, then memory-mapped).

    Args:
        name: ``owner/name`` on the hub.
        split: the split's name there, such as ``validation``.
        config: the data set's configuration, if it has several.
        revision: commit to pin; None takes the newest.
    """

    def __init__(
        self, name: str, split: str, *, config: str | None = None, revision: str | None = None
    ) -> None:
        from datasets import Dataset, load_dataset  # heavy, and not needed for files

        self.name = name
        dataset = load_dataset(name, config, split=split, revision=revision)
        assert isinstance(dataset, Dataset), f"{name} did not load as a table: {type(dataset)}"
        self.dataset = dataset
        self.split = split

    def __iter__(self) -> Iterator[tuple[str, Record]]:
        for number, record in enumerate(self.dataset):
            yield f"{self.name} ({self.split}), row {number}", dict(record)

    def __str__(self) -> str:
        return f"{self.name} ({self.split})"

    def fingerprint(self) -> str:
        """See `Reader.fingerprint`."""
        return f"{self.name}:{self.split}:{self.dataset._fingerprint}"
