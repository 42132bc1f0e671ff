"""Data sets of the Hugging Face hub."""

from collections.abc import Iterator

from polyqwen.data.rows.arrow_batches import records_of
from polyqwen.data.rows.reader import Numbered

BATCH = 1024  # rows turned to Python at a time


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

    def __iter__(self) -> Iterator[Numbered]:
        # as plain Arrow: a column of pictures would open whatever path or address it names
        number = 0
        for table in self.dataset.with_format("arrow").iter(BATCH):
            for batch in table.to_batches():
                yield from records_of(batch, str(self), number)
                number += batch.num_rows

    def __str__(self) -> str:
        return f"{self.name} ({self.split})"

    def fingerprint(self) -> str:
        """See `Reader.fingerprint`."""
        return f"{self.name}:{self.split}:{self.dataset._fingerprint}"
