"""Dotted paths in nested mappings and lists: what stands there, and which patterns they match."""

from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from typing import Any, NamedTuple, TypeVar

T = TypeVar("T")


class Entry(NamedTuple):
    """A value and where it stands: ``tasks.ocr.classes[0]``.

    Attributes:
        path: the dotted path.
        key: of the mapping that holds it; None for an item of a list.
        value: the value.
    """

    path: str
    key: str | None
    value: Any


def entries(value: Any, path: str = "") -> Iterator[Entry]:
    """What a mapping or list holds, however deep: a container comes before its own values."""
    if isinstance(value, Mapping):
        for name, inner in value.items():
            where = f"{path}.{name}" if path else str(name)
            yield Entry(where, str(name), inner)
            yield from entries(inner, where)
    elif isinstance(value, list | tuple):
        for i, inner in enumerate(value):
            yield Entry(f"{path}[{i}]", None, inner)
            yield from entries(inner, f"{path}[{i}]")


def matching(table: Mapping[str, T], path: str) -> T | None:
    """The table's first value whose pattern, with ``*`` for any one key, fits the path."""
    for pattern, value in table.items():
        if path.count(".") == pattern.count(".") and fnmatchcase(path, pattern):
            return value
    return None
