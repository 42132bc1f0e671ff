"""The frame of a page: head, style, script and the data of its charts, all in one file."""

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from polyqwen.report.page.markup import Html, joined, tag

HERE = Path(__file__).parent
# Nothing is fetched, and no script runs but ours: a text that slipped through could do no harm.
POLICY = (
    "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; "
    "base-uri 'none'; form-action 'none'"
)


class Section(NamedTuple):
    """A part of a page with a heading that the navigation names."""

    heading: str
    content: Sequence[object]

    @property
    def anchor(self) -> str:
        """What the navigation points at."""
        return "".join(c if c.isalnum() else "-" for c in self.heading.lower())


def document(
    title: str, head: Sequence[object], sections: Sequence[Section], charts: Mapping[str, Any]
) -> str:
    """The whole page.

    Args:
        title: of the window.
        head: what stands above the navigation.
        sections: in order; those without content are left out.
        charts: id of a placeholder -> what to draw there; see `charts`.
    """
    shown = [section for section in sections if any(section.content)]
    links = [tag("a", s.heading, href=f"#{s.anchor}") for s in shown]
    body = [
        tag("header", *head),
        tag("nav", *links, aria_label="Sections"),
        tag("main", *(_section(section) for section in shown)),
        Html(f'<script type="application/json" id="charts">{inert(charts)}</script>'),
        Html(f"<script>{_asset('charts.js')}</script>"),
    ]
    digest = base64.b64encode(hashlib.sha256(_asset("charts.js").encode()).digest()).decode()
    policy = POLICY.format(digest=digest)
    top = [
        tag("meta", charset="utf-8"),
        Html(f'<meta http-equiv="Content-Security-Policy" content="{policy}">'),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", title),
        Html(f"<style>{_asset('report.css')}</style>"),
    ]
    return "<!doctype html>\n" + tag(
        "html", tag("head", *top), "\n", tag("body", *body), "\n", lang="en"
    )


def inert(value: Any) -> str:
    """JSON that no parser of HTML can take for the end of its script element."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _section(section: Section) -> Html:
    heading = tag("h2", section.heading)
    return tag("section", heading, joined(section.content), id=section.anchor)


def _asset(name: str) -> str:
    return (HERE / name).read_text(encoding="utf-8")
