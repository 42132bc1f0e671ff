"""A few held-out rows that may steer the training: never trained on, never used to judge it."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset as Table
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components


def trusted_split(
    table: Table, count: int, seed: int = 0
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
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
    rows = np.arange(len(table))
    if count == 0:
        return rows[:0], rows
    groups = _groups(*_contents(table))
    sizes = np.bincount(groups)
    order = np.random.default_rng(seed).permutation(len(sizes))
    before = np.cumsum(sizes[order]) - sizes[order]  # rows of the groups taken earlier
    chosen = np.isin(groups, order[before < count])
    trusted, others = rows[chosen], rows[~chosen]
    if min(len(trusted), len(others)) < count:
        raise ValueError(
            f"data.trusted_rows={count} would leave {len(others)} of {len(table)} dev rows to "
            "choose checkpoints by; give more dev rows or trust fewer"
        )
    return trusted, others


def _contents(table: Table) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """What ties each row to others, as two numbers: (rows,) and (rows,); those of texts are < 0."""
    sides = [table.data.column(name) for name in ("query", "document")]
    first, second = _numbered([pc.struct_field(s, "image").cast(pa.string()) for s in sides])
    texts = [-1 - numbers for numbers in _numbered([pc.struct_field(s, "key") for s in sides])]
    # with one picture it stands twice
    one, other = np.where(first < 0, second, first), np.where(second < 0, first, second)
    return np.where(one < 0, texts[0], one), np.where(one < 0, texts[1], other)


def _numbered(columns: Sequence[pa.ChunkedArray]) -> list[NDArray[np.int64]]:
    """Equal values of columns of one length get equal numbers >= 0, null gets -1."""
    whole = pa.concat_arrays([chunk for column in columns for chunk in column.chunks])
    codes = pc.fill_null(whole.dictionary_encode().indices, -1)
    return np.split(np.asarray(codes, dtype=np.int64), len(columns))


def _groups(one: NDArray[np.int64], other: NDArray[np.int64]) -> NDArray[np.int64]:
    """A number for each row, equal for rows tied over any chain, in the order of first rows."""
    contents, nodes = np.unique(np.concatenate([one, other]), return_inverse=True)
    ends = np.split(nodes, 2)
    ties = coo_array((np.ones(len(one), bool), (ends[0], ends[1])), shape=(len(contents),) * 2)
    _, part = connected_components(ties, directed=False)
    _, first, group = np.unique(part[ends[0]], return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[group]
