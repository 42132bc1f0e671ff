"""A few held-out rows that may steer the training: never trained on, never used to judge it."""

from collections.abc import Hashable, Sequence

import numpy as np
from datasets import Dataset as Table


def trusted_split(table: Table, count: int, seed: int = 0) -> tuple[list[int], list[int]]:
    """Divides a split so that no picture and no text query is on both sides.

    Rows that share a picture stay together, and without pictures rows that share a text of either
    side (answers such as "red" repeat under pictures and tie nothing there).

    Args:
        table: the prepared rows of one task.
        count: rows to trust; whole groups are taken until there are so many, >= 0.
        seed: of the choice of groups.

    Returns:
        The trusted rows and the others, each in the order of the table.

    Raises:
        ValueError: fewer than ``count`` rows would be left on either side.
    """
    if count == 0:
        return [], list(range(len(table)))
    groups = _groups(_contents(table))
    order = np.random.default_rng(seed).permutation(max(groups) + 1 if groups else 0)
    members: dict[int, list[int]] = {}
    for row, group in enumerate(groups):
        members.setdefault(group, []).append(row)
    trusted: list[int] = []
    for group in order.tolist():
        if len(trusted) < count:
            trusted += members[group]
    others = sorted(set(range(len(table))) - set(trusted))
    if len(trusted) < count or len(others) < count:
        raise ValueError(
            f"data.trusted_rows={count} would leave {len(others)} of {len(table)} dev rows to "
            "choose checkpoints by; give more dev rows or trust fewer"
        )
    return sorted(trusted), others


def _contents(table: Table) -> list[list[Hashable]]:
    """What ties each row to others."""
    ties: list[list[Hashable]] = []
    for query, document in zip(table["query"], table["document"], strict=True):
        pictures = [side["image"] for side in (query, document) if side["image"] is not None]
        ties.append(pictures or [query["key"], document["key"]])
    return ties


def _groups(ties: Sequence[Sequence[Hashable]]) -> list[int]:
    """A number for each row, equal for rows that are tied over any chain of contents."""
    parent = list(range(len(ties)))

    def root(row: int) -> int:
        while parent[row] != row:
            parent[row] = parent[parent[row]]
            row = parent[row]
        return row

    first: dict[Hashable, int] = {}
    for row, contents in enumerate(ties):
        for content in contents:
            parent[root(row)] = root(first.setdefault(content, row))
    numbers: dict[int, int] = {}
    return [numbers.setdefault(root(row), len(numbers)) for row in range(len(ties))]
