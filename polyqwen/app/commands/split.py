"""Split one file of rows into train, dev and test."""

import argparse
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from polyqwen.atomic_files import write_text

if TYPE_CHECKING:
    from polyqwen.data.images.embedded import PictureStore

SPLITS = ("train", "dev", "test")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The rows, the folder to write, and how to divide them."""
    parser.add_argument("rows", type=Path, help=".jsonl, .parquet or .arrow")
    parser.add_argument("--to", type=Path, required=True, help="folder to write: DATA/TASK")
    parser.add_argument(
        "--together",
        metavar="COLUMN",
        help="rows with the same value stay on one side, such as all questions on a picture, in "
        "other files too; default: the whole row",
    )
    parser.add_argument(
        "--shares", type=float, nargs=3, default=(0.8, 0.1, 0.1), metavar=("TRAIN", "DEV", "TEST")
    )


def run(arguments: argparse.Namespace) -> None:
    """Writes the three files and prints how many rows each has."""
    split(arguments.rows, arguments.to, arguments.together, arguments.shares)


def split(
    rows: Path,
    to: Path,
    together: str | None = None,
    shares: Sequence[float] = (0.8, 0.1, 0.1),
) -> dict[str, int]:
    """Writes ``to/{train,dev,test}.jsonl``; the side follows from the value alone, not its place.

    Pictures that lie in the rows themselves become files in ``to/pictures``.

    Args:
        rows: the file.
        to: folder to write.
        together: the column whose value decides; None takes the whole row.
        shares: of the three, each > 0; they are divided by their sum.

    Returns:
        Rows by split; a small file has them near the shares, not at them.

    Raises:
        ValueError: a file or column that is not there, a folder with splits in it, or a split that
            got no row.
    """
    from polyqwen.data.images.embedded import FOLDER, PictureStore
    from polyqwen.data.rows.sources import READERS

    if rows.suffix not in READERS or not rows.is_file():
        raise ValueError(f"{rows} is no file with one of the endings {', '.join(READERS)}")
    if any((to / f"{name}.jsonl").exists() for name in SPLITS):
        raise ValueError(f"{to} has splits already; remove them, or choose another folder")
    if min(shares) <= 0:
        raise ValueError(f"--shares must be above 0, got {' '.join(map(str, shares))}")
    store = PictureStore(to / FOLDER)
    lines: dict[str, list[str]] = {name: [] for name in SPLITS}
    for where, record in READERS[rows.suffix](rows):
        if isinstance(record, ValueError):
            raise record
        record = {column: _shown(cell, store) for column, cell in record.items()}
        line = json.dumps(record, ensure_ascii=False, default=str) + "\n"
        lines[_side(_value(record, together, where) if together else line, shares)].append(line)
    counts = {name: len(found) for name, found in lines.items()}
    if not all(counts.values()):
        raise ValueError(f"{rows} is too small to split ({counts}); raise --shares of the empty")
    for name, found in lines.items():
        write_text(to / f"{name}.jsonl", "".join(found))
    print(f"written to {to}: " + ", ".join(f"{name} {n}" for name, n in counts.items()))
    return counts


def _shown(cell: Any, store: "PictureStore") -> Any:
    """A cell of a row; of a picture that lies in it, the path of a file from the data root."""
    from polyqwen.data.images.embedded import ENDINGS, picture_of

    found = picture_of(cell)
    if not isinstance(found, bytes) or not found.startswith(tuple(ENDINGS)):
        return found
    path = store.find(store.keep(found))
    assert path is not None
    return str(path.relative_to(store.folder.parents[1]))


def _value(record: dict[str, Any], column: str, where: str) -> str:
    if column not in record:
        raise ValueError(f"{where} has no column {column!r}, but {', '.join(sorted(record))}")
    return str(record[column])


def _side(value: str, shares: Sequence[float]) -> str:
    """By a hash: equal values fall on the same side in every file."""
    place = int.from_bytes(hashlib.blake2b(value.encode(), digest_size=8).digest()) / 2**64
    place *= sum(shares)
    if place < shares[0]:
        return "train"
    return "dev" if place < shares[0] + shares[1] else "test"
