"""Reads every row of a split and decodes every picture once; counts what is there."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

from polyqwen.data.images.images import Pictures
from polyqwen.data.rows.bad_rows import REMEMBERED, Sieve, pictures_of
from polyqwen.data.rows.task import Task
from polyqwen.data.rows.types import Content, Example, Reader
from polyqwen.data.tables.prepare import in_groups, read_examples
from polyqwen.data.tokens import Tokens
from polyqwen.data.validation.counts import Classes, Keys, Lengths, Scores

SIDES = ("query", "document")


class Scan:
    """What a split of a task holds.

    Memory grows by 24 bytes a row: rows stream through, contents are kept as 64-bit names.

    Args:
        task: reads the rows.
        tokens: measures texts.
        pictures: decodes pictures.
        classes: of the labels that the run learns; a row of another class is bad.

    Attributes:
        faults: bad rows.
        pairs: names of the good rows' (query, document).
        shown: names of the good rows' pictures, by the bytes of their files.
        spelled: texts that spell out a special token; they stay plain text.
        broken: why the rest of the split cannot be read; None if it was read to its end.
    """

    def __init__(
        self,
        task: Task,
        tokens: Tokens,
        pictures: Pictures,
        classes: Mapping[str, Sequence[str]],
    ) -> None:
        self._task, self._tokens, self._pictures = task, tokens, pictures
        self._classes = classes
        self._named = lru_cache(REMEMBERED)(self._name)
        self._sieve, self.spelled = Sieve(pictures), 0
        self.faults, self.scores, self.classes = self._sieve.faults, Scores(), Classes()
        self.lengths = {side: Lengths(tokens.max_tokens) for side in SIDES}
        self.pairs, self.shown = Keys(), Keys()
        self.broken: str | None = None

    @property
    def rows(self) -> int:
        """All rows, bad ones too."""
        return self._sieve.rows

    @property
    def good(self) -> int:
        """Rows that can be used."""
        return self.rows - self.faults.kinds.total()

    def read(self, reader: Reader) -> "Scan":
        """Looks at all rows; returns itself."""
        try:
            for group in in_groups(self._usable(reader)):
                self._measure([example for _, example in group])
        except ValueError as error:  # of the file: no row can be read behind it
            self.broken = str(error)
        return self

    def _usable(self, reader: Reader) -> Iterator[tuple[str, Example]]:
        rows = read_examples(reader, self._task, self._pictures, self._classes)
        for where, example in self._sieve.good(rows):
            self._remember(example)
            yield where, example

    def _remember(self, example: Example) -> None:
        names = {name: self._named(name) for name in pictures_of(example)}
        for key in dict.fromkeys(names.values()):
            self.shown.add(key, self.rows)
        assert example.positive is not None
        sides = [
            f"{names.get(side.image or '', '')}\0{side.text}"
            for side in (example.query, example.positive)
        ]
        self.pairs.add(_hash64("\1".join(sides).encode()), self.rows)
        if example.score is not None:
            self.scores.add(example.score)
        for label, name in (example.labels or {}).items():
            self.classes.add(label, name)

    def _measure(self, examples: list[Example]) -> None:
        sides: dict[str, list[Content]] = {"query": [e.query for e in examples]}
        if "labels" not in self._task.fields:
            documents = [e.positive for e in examples if e.positive is not None]
            sides["document"] = [*documents, *(n for e in examples for n in e.negatives)]
        for side, contents in sides.items():
            texts = [content.text for content in contents if content.text]
            if texts:
                self.lengths[side].add(self._tokens.lengths(texts))
            self.spelled += sum(map(self._tokens.spells_special, texts))

    def _name(self, picture: str) -> int:
        """A name for the bytes of a picture's file."""
        return _hash64(self._pictures.path(picture).read_bytes())

    def report(self) -> dict[str, Any]:
        """All counts as plain values."""
        return {
            "rows": self.rows,
            "bad": self.faults.report(),
            "broken": self.broken,
            "pictures": self.shown.distinct,
            "tokens": {side: lengths.report() for side, lengths in self.lengths.items()},
            "scores": self.scores.report(),
            "labels": self.classes.report(),
            "texts_that_spell_special_tokens": self.spelled,
        }


def _hash64(data: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "big")
