"""Find what is nearest to a text or a picture."""

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from polyqwen.app.commands.embed import PICTURES

if TYPE_CHECKING:
    from polyqwen.inference.inputs import Input


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The index, the query and how many hits to show."""
    parser.add_argument("index", type=Path, help="file written by embed")
    parser.add_argument("query", help="a text, or a picture's file")
    parser.add_argument("--text", help="a question about the picture given as the query")
    parser.add_argument("--model", type=Path, help="another place of the index's model")
    parser.add_argument("--task", help="whose prefix the query gets; default: the index's")
    parser.add_argument("-k", type=int, default=5, help="how many to show")
    parser.add_argument("--json", action="store_true", help="one line of JSON per hit")


def run(arguments: argparse.Namespace) -> None:
    """Embeds the query and prints its nearest neighbors."""
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
