"""Write the vectors of files or rows."""

import argparse
import sys
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from polyqwen.inference.inputs import Input
    from polyqwen.inference.model import EmbeddingModel
    from polyqwen.inference.vectors import Entry

PICTURES = (".jpg", ".jpeg", ".png", ".webp")
ROWS = (".jsonl", ".parquet", ".arrow")
BLOCK = 1024  # rows embedded, and written, at a time


class Columns(NamedTuple):
    """Where texts and pictures stand in rows.

    Attributes:
        text: column of texts.
        image: column of pictures, paths or the pictures themselves.
        root: folder that paths are relative to; None: the one of the rows.
        store: folder for pictures that lie in rows.
    """

    text: str
    image: str
    root: Path | None
    store: Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What to embed, the model, and where texts and images stand in rows."""
    parser.add_argument(
        "inputs",
        type=Path,
        nargs="+",
        help="pictures, .txt files (one text each), folders of these, or .jsonl, .parquet and "
        ".arrow files of rows",
    )
    parser.add_argument("-o", "--to", type=Path, required=True, help="Parquet file to write")
    parser.add_argument("--model", type=Path, required=True, help="a run or an exported folder")
    parser.add_argument("--task", help="whose prefix the contents get")
    parser.add_argument("--text", default="text", help="column of rows with the text")
    parser.add_argument(
        "--image", default="image", help="column of rows with the picture, or its path"
    )
    parser.add_argument(
        "--root", type=Path, help="folder of the rows' pictures; default: the rows' own"
    )
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--truncate-dim", type=int, help="leading dimensions to keep")


def run(arguments: argparse.Namespace) -> None:
    """Embeds block by block into a Parquet file."""
    from polyqwen.inference.model import load
    from polyqwen.inference.vectors import write_vectors

    if arguments.to.suffix != ".parquet":
        raise ValueError(f"-o {arguments.to}: the file is Parquet; give it the ending .parquet")
    model = load(arguments.model)
    task = model.known(arguments.task or model.default_task)
    store = arguments.to.with_suffix(".pictures")
    columns = Columns(arguments.text, arguments.image, arguments.root, store)
    entries = _entries(arguments.inputs, columns)
    size = arguments.truncate_dim
    blocks = _blocks(model, entries, task, arguments.batch_size, size)
    made_by = {"model": str(arguments.model.resolve()), "task": task, "truncate_dim": size}
    rows = write_vectors(arguments.to, blocks, made_by)
    print(f"{rows} vectors of {size or model.dimension} numbers written to {arguments.to}")


def _blocks(
    model: "EmbeddingModel", entries: Iterable["Entry"], task: str, batch: int, size: int | None
) -> Iterator[tuple[list["Entry"], Any]]:
    stream, done = iter(entries), 0
    while block := list(islice(stream, BLOCK)):
        inputs: list[Input] = [{"text": e.text, "image": e.image} for e in block]
        shown = sys.stderr.isatty()
        yield (
            block,
            model.encode(
                inputs, task=task, batch_size=batch, truncate_dim=size, show_progress=shown
            ),
        )
        done += len(block)
        print(f"{done} embedded", file=sys.stderr)


def _entries(inputs: Iterable[Path], columns: Columns) -> Iterator["Entry"]:
    """What the command line names, in its order; folders in the order of their files' names."""
    from polyqwen.inference.vectors import Entry

    for path in inputs:
        ending = path.suffix.lower()
        if path.is_dir():
            wanted = {*PICTURES, ".txt"}
            files = sorted(p for p in path.rglob("*") if p.suffix.lower() in wanted)
            if not files:
                raise ValueError(f"{path} holds no pictures and no .txt files")
            yield from _entries(files, columns)
        elif not path.is_file():
            raise ValueError(f"there is no {path}")
        elif ending in PICTURES:
            yield Entry("", str(path))
        elif ending == ".txt":
            yield Entry(path.read_text(encoding="utf-8"), None)
        elif ending in ROWS:
            yield from _rows(path, columns)
        else:
            known = ", ".join((*PICTURES, ".txt", *ROWS))
            raise ValueError(f"{path}: only {known} can be embedded")


def _rows(path: Path, columns: Columns) -> Iterator["Entry"]:
    from polyqwen.data.images.images import Pictures
    from polyqwen.data.rows.parse import names_of
    from polyqwen.data.rows.sources import READERS
    from polyqwen.data.rows.types import RowError
    from polyqwen.inference.vectors import Entry

    text, image, root, store = columns
    pictures = Pictures(root or path.parent, store=store)  # keeps the rows' pictures within
    for where, record in READERS[path.suffix](path):
        if isinstance(record, RowError):
            raise record
        own, picture = record.get(text), pictures.named(record.get(image))
        if not own and not picture:
            raise ValueError(
                f"{where} has neither {text!r} nor {image!r}, but {names_of(record)}; "
                "name its columns with --text and --image"
            )
        shown = pictures.path(str(picture)) if picture else None
        if shown is not None and not shown.is_file():
            raise ValueError(f"{where}: there is no picture {shown}; say where with --root FOLDER")
        yield Entry(str(own or ""), None if shown is None else str(shown))
