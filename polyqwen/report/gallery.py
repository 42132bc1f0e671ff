"""Queries beside what the model found for them: as data, in a run's folder, and as Markdown."""

import base64
import html
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, NotRequired, TypedDict

from PIL import Image

from polyqwen.atomic_files import write_text
from polyqwen.report.format_values import markdown_table
from polyqwen.runs.run_folder import Kept, read_json

SIDE = 220  # pixels of a kept picture at most
LONGEST = 600  # characters of a kept text
QUALITY = 72  # of JPEG
# Texts are data: nothing in them may become a cell, an emphasis or a link.
_PLAIN = str.maketrans({c: f"&#{ord(c)};" for c in "|*_`[]\\~#"})


class Result(NamedTuple):
    """One retrieved document, best first in its list."""

    text: str
    image: Image.Image | None
    cosine: float
    correct: bool


class GalleryRow(TypedDict):
    """A query, what it should find and what it found; ``Result`` or a plain tuple like it."""

    query_text: str
    query_image: Image.Image | None
    answer_text: str
    answer_note: NotRequired[str]  # such as the rank of the answer
    results: Sequence[Result | tuple[str, Image.Image | None, float, bool]]


Galleries = Mapping[str, Mapping[str, Sequence[GalleryRow]]]  # task → kind → rows


def has_pictures(rows: Sequence[GalleryRow]) -> bool:
    """Whether any query or result has one."""
    return any(
        row["query_image"] is not None or any(Result(*r).image is not None for r in row["results"])
        for row in rows
    )


def write_galleries(galleries: Galleries, file: Path) -> None:
    """Writes texts and thumbnails as JSON; what the file has of other tasks or kinds stays."""
    kept: Kept = read_json(file) or {}
    for task, kinds in galleries.items():
        for kind, rows in kinds.items():
            kept.setdefault(task, {})[kind] = [_plain(row) for row in rows]
    write_text(file, json.dumps(kept, ensure_ascii=False))


def _plain(row: GalleryRow) -> dict[str, Any]:
    return {
        "query": _cut(row["query_text"]),
        "picture": data_url(row["query_image"]),
        "answer": _cut(row["answer_text"]),
        "note": row.get("answer_note", ""),
        "results": [_result(Result(*result)) for result in row["results"]],
    }


def _result(result: Result) -> dict[str, Any]:
    return {
        "text": _cut(result.text),
        "picture": data_url(result.image),
        "cosine": round(float(result.cosine), 4),
        "correct": bool(result.correct),
    }


def data_url(picture: Image.Image | None, side: int = SIDE) -> str | None:
    """A JPEG thumbnail as an address that holds its own data."""
    if picture is None:
        return None
    small = picture.convert("RGB")
    small.thumbnail((side, side))
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"


def gallery_markdown(rows: Sequence[GalleryRow]) -> str:
    """One line per query: query, right document, and the results, ✓ right or ✗ wrong."""
    places = max((len(row["results"]) for row in rows), default=0)
    headings = ["query", "right document", *map(str, range(1, places + 1))]
    lines = []
    for row in rows:
        note = row.get("answer_note", "")
        cells = [_markdown(row["query_text"]), f"{_markdown(row['answer_text'])} ({note})"]
        cells += [_markdown_result(Result(*result)) for result in row["results"]]
        cells += [""] * (len(headings) - len(cells))
        lines.append(cells)
    return markdown_table(headings, lines, left=range(len(headings)))


def _markdown_result(result: Result) -> str:
    return f"{'✓' if result.correct else '✗'} **{result.cosine:.3f}** {_markdown(result.text)}"


def _markdown(text: str) -> str:
    return html.escape(" ".join(text.split()), quote=False).translate(_PLAIN)
