"""Queries and what the model found for them: the hardest, and some of every kind."""

from collections.abc import Mapping, Sequence
from typing import Any

from polyqwen.report.page.markup import Html, tag
from polyqwen.runs.run_folder import RunFolder

WORDS = {"hardest": "the queries it fails at most", "spread": "some of every kind"}
PICTURE = "data:image/jpeg;base64,"  # nothing else may stand in an img


def failures(run: RunFolder) -> list[Html]:
    """The hardest queries of each task."""
    return _galleries(run, "hardest")


def examples(run: RunFolder) -> list[Html]:
    """Queries spread evenly over the split; `evaluate.py` keeps them."""
    return _galleries(run, "spread")


def _galleries(run: RunFolder, kind: str) -> list[Html]:
    found = {task: kinds[kind] for task, kinds in run.galleries.items() if kinds.get(kind)}
    if not found:
        return []
    note = f"Test split, {WORDS[kind]}: the right answer (→) with its rank, then what came first."
    shown = [tag("p", note, cls="note")]
    for i, (task, rows) in enumerate(found.items()):
        body = [tag("summary", f"{task} ({len(rows)})"), *(_query(row) for row in rows)]
        shown.append(tag("details", *body, open=i < 4))
    return shown


def _query(row: Mapping[str, Any]) -> Html:
    left = [_picture(row.get("picture"), "picture of the query"), tag("p", row.get("query", ""))]
    answer = tag("p", f"→ {row.get('answer', '')} ", tag("small", row.get("note", "")), cls="good")
    right = [answer, tag("ol", *(_result(result) for result in _list(row.get("results"))))]
    return tag("div", tag("div", *left), tag("div", *right, cls="found"), cls="query")


def _result(result: Mapping[str, Any]) -> Html:
    right = bool(result.get("correct"))
    mark = tag("span", f"{'✓' if right else '✗'} {float(result.get('cosine', 0.0)):.3f}")
    picture = _picture(result.get("picture"), "picture of a result")
    text = tag("span", result.get("text", ""))
    return tag("li", mark, picture, text, cls="good" if right else None)


def _picture(address: object, what: str) -> Html | None:
    if not isinstance(address, str) or not address.startswith(PICTURE):
        return None
    return tag("img", src=address, alt=what, loading="lazy")


def _list(value: object) -> Sequence[Mapping[str, Any]]:
    return value if isinstance(value, list) else []
