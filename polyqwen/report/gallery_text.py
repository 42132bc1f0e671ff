"""A gallery without pictures: queries and what the model found, as a Markdown table."""

import html
from collections.abc import Sequence

from polyqwen.report.gallery import GalleryRow, Result

# Texts are data: nothing in them may become a cell, an emphasis or a link.
_PLAIN = str.maketrans({c: f"&#{ord(c)};" for c in "|*_`[]\\~#"})


def gallery_markdown(rows: Sequence[GalleryRow]) -> str:
    """One line per query: query, right document, and the results, ✓ right or ✗ wrong."""
    places = max((len(row["results"]) for row in rows), default=0)
    headings = ["query", "right document", *map(str, range(1, places + 1))]
    lines = ["| " + " | ".join(headings) + " |", "|" + ":--|" * len(headings)]
    for row in rows:
        note = row.get("answer_note", "")
        cells = [_plain(row["query_text"]), f"{_plain(row['answer_text'])} ({note})"]
        cells += [_result(Result(*result)) for result in row["results"]]
        cells += [""] * (len(headings) - len(cells))
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _result(result: Result) -> str:
    return f"{'✓' if result.correct else '✗'} **{result.cosine:.3f}** {_plain(result.text)}"


def _plain(text: str) -> str:
    return html.escape(" ".join(text.split()), quote=False).translate(_PLAIN)
