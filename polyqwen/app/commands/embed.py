"""python -m polyqwen embed and search: vectors of files, and what is near to a query."""

import argparse
import json
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


def add_to(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Registers both commands."""
    embed_ = commands.add_parser("embed", help="write the vectors of files or rows")
    embed_.add_argument(
        "inputs",
        type=Path,
        nargs="+",
        help="pictures, .txt files (one text each), folders of these, or .jsonl, .parquet and "
        ".arrow files of rows",
    )
    embed_.add_argument("-o", "--to", type=Path, required=True, help="Parquet file to write")
    embed_.add_argument("--model", type=Path, required=True, help="a run or an exported folder")
    embed_.add_argument("--task", help="whose prefix the contents get")
    embed_.add_argument("--text", default="text", help="column of rows with the text")
    embed_.add_argument(
        "--image", default="image", help="column of rows with the picture, or its path"
    )
    embed_.add_argument(
        "--root", type=Path, help="folder of the rows' pictures; default: the rows' own"
    )
    embed_.add_argument("--batch-size", type=int, default=32)
    embed_.add_argument("--truncate-dim", type=int, help="leading dimensions to keep")
    embed_.set_defaults(run=_embed)

    search_ = commands.add_parser("search", help="find what is nearest to a text or a picture")
    search_.add_argument("index", type=Path, help="file written by embed")
    search_.add_argument("query", help="a text, or a picture's file")
    search_.add_argument("--text", help="a question about the picture given as the query")
    search_.add_argument("--model", type=Path, help="another place of the index's model")
    search_.add_argument("--task", help="whose prefix the query gets; default: the index's")
    search_.add_argument("-k", type=int, default=5, help="how many to show")
    search_.add_argument("--json", action="store_true", help="one line of JSON per hit")
    search_.set_defaults(run=_search)


def _embed(arguments: argparse.Namespace) -> None:
    from polyqwen.inference.model import EmbeddingModel
    from polyqwen.inference.vectors import write_vectors

    if arguments.to.suffix != ".parquet":
        raise ValueError(f"-o {arguments.to}: the file is Parquet; give it the ending .parquet")
    model = EmbeddingModel.load(arguments.model)
    task = model.known(arguments.task or model.default_task)
    store = arguments.to.with_suffix(".pictures")
    columns = Columns(arguments.text, arguments.image, arguments.root, store)
    entries = _entries(arguments.inputs, columns)
    size = arguments.truncate_dim
    blocks = _blocks(model, entries, task, arguments.batch_size, size)
    made_by = {"model": str(arguments.model.resolve()), "task": task, "truncate_dim": size}
    rows = write_vectors(arguments.to, blocks, made_by)
    print(f"{rows} vectors of {size or model.dimension} numbers written to {arguments.to}")


def _search(arguments: argparse.Namespace) -> None:
    from polyqwen.inference.model import EmbeddingModel
    from polyqwen.inference.vectors import VectorFile

    if arguments.k < 1:
        raise ValueError(f"-k must be at least 1, got {arguments.k}")
    index = VectorFile(arguments.index)
    where = arguments.model or Path(index.made_by["model"])
    if not where.is_dir():
        raise ValueError(f"the index's model {where} is not there; say where with --model")
    model = EmbeddingModel.load(where)
    query = model.encode(
        _query(arguments.query, arguments.text),
        task=arguments.task or index.made_by["task"],
        truncate_dim=index.made_by["truncate_dim"],
    )
    for place, hit in enumerate(index.search(query, arguments.k), start=1):
        text, image = hit.entry
        if arguments.json:
            found = {"rank": place, "row": hit.row, "cosine": round(hit.cosine, 6)}
            print(json.dumps({**found, "text": text, "image": image}, ensure_ascii=False))
        else:
            what = " | ".join(part for part in (image, " ".join(text.split())) if part)
            print(f"{place:3d}  {hit.cosine:6.3f}  {what[:120]}")


def _query(given: str, text: str | None) -> "Input":
    """A picture if it ends like one, else a text."""
    path = Path(given)
    if path.suffix.lower() not in PICTURES:
        if text is not None:
            raise ValueError(f"--text is asked about a picture, and {given!r} is none")
        return given
    return {"image": path, "text": text or ""}


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
