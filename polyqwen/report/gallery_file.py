"""Galleries kept as data, small enough to go into a page."""

import base64
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from polyqwen.atomic_files import write_text
from polyqwen.report.gallery import GalleryRow, Result
from polyqwen.runs.run_folder import Kept, read_json

SIDE = 220  # pixels of a picture at most
LONGEST = 600  # characters of a text
QUALITY = 72  # of JPEG

Galleries = Mapping[str, Mapping[str, Sequence[GalleryRow]]]  # task → kind → rows


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
