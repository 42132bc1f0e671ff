"""Dotted paths in nested mappings and lists: what stands there, and which patterns they match."""

from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from typing import Any, TypeVar

T = TypeVar("T")


def entries(value: Any, path: str = "") -> Iterator[tuple[str, str | None, Any]]:
    """What a mapping or list holds, however deep: a container comes before its own values.

    Yields:
        Path (``tasks.ocr.classes[0]``), key in the mapping that holds it (None for an item of a
        list), and the value.
    """
    inside: list[tuple[str, str | None, Any]] = []
    if isinstance(value, Mapping):
        inside = [(f"{path}.{key}" if path else str(key), str(key), v) for key, v in value.items()]
    elif isinstance(value, list | tuple):
        inside = [(f"{path}[{i}]", None, item) for i, item in enumerate(value)]
    for where, key, inner in inside:
        yield where, key, inner
        yield from entries(inner, where)


def matching(table: Mapping[str, T], path: str) -> T | None:
    """The table's first value whose pattern, with ``*`` for any one key, fits the path."""
    for pattern, value in table.items():
        if path.count(".") == pattern.count(".") and fnmatchcase(path, pattern):
            return value
    return None
