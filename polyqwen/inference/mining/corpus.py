"""Distinct documents with their vectors, in files: what stays in memory is a few bytes each."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray


class Corpus:
    """Texts and vectors of distinct documents, numbered in the order in which they came.

    Args:
        path: files with this name and two endings are written.
        dimension: D, length of a vector.
    """

    def __init__(self, path: Path, dimension: int) -> None:
        self.dimension = dimension
        self._numbers: dict[int, int] = {}  # content key -> number
        self._starts: list[int] = []  # of the texts, in bytes
        self._vectors = path.with_suffix(".f32")
        self._texts = path.with_suffix(".jsonl")
        self._vectors.touch()
        self._texts.touch()

    def __len__(self) -> int:
        return len(self._numbers)

    def new(self, keys: Sequence[int]) -> list[int]:
        """Places of the documents that are not there yet, the first of equal ones."""
        first: dict[int, int] = {}
        for place, key in enumerate(keys):
            if key not in self._numbers:
                first.setdefault(key, place)
        return list(first.values())

    def add(
        self,
        keys: Sequence[int],
        texts: Sequence[str],
        new: Sequence[int],
        vectors: NDArray[np.float32] | None,
    ) -> list[int]:
        """Keeps the documents at the places `new`, (len(new), D) vectors; numbers of all keys."""
        if vectors is not None:
            with self._vectors.open("ab") as file:
                file.write(np.ascontiguousarray(vectors, dtype=np.float32).tobytes())
            with self._texts.open("ab") as lines:
                for place in new:
                    self._numbers[keys[place]] = len(self._numbers)
                    self._starts.append(lines.tell())
                    lines.write(json.dumps(texts[place]).encode() + b"\n")
        return [self._numbers[key] for key in keys]

    def number(self, key: int) -> int | None:
        """Of the document with this content; None if there is none."""
        return self._numbers.get(key)

    def text(self, number: int) -> str:
        """The document's text."""
        with self._texts.open("rb") as lines:
            lines.seek(self._starts[number])
            text: str = json.loads(lines.readline())
        return text

    def vectors(self) -> NDArray[np.float32]:
        """(M, D), read from the file as it is asked for."""
        return np.memmap(self._vectors, np.float32, "r", shape=(len(self), self.dimension))

    def blocks(self, size: int) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """(number of the first, (≤ size, D) vectors) one block after the other."""
        whole = self.vectors()
        for start in range(0, len(self), size):
            yield start, np.asarray(whole[start : start + size])
