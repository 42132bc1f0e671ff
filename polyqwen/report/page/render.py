"""Renders the templates: pages, one HTML file each, every text escaped, nothing fetched."""

import base64
import hashlib
import json
import math
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape
from markupsafe import Markup

from polyqwen.report.format_values import duration, is_number, number
from polyqwen.report.page.charts import Charts

HERE = Path(__file__).parent
# Nothing is fetched, and no script runs but ours: a text that slipped through could do no harm.
POLICY = (
    "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; "
    "base-uri 'none'; form-action 'none'"
)


def render_page(
    template: str, title: str, sections: Mapping[str, Any], charts: Charts, **content: Any
) -> str:
    """The whole page.

    Args:
        template: file of this folder that extends ``base.html.j2``.
        title: of the window.
        sections: heading -> what the template shows under it; empty ones are left out.
        charts: those whose placeholders are in the sections.
        content: further values of the template.
    """
    script = _asset("charts.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return (
        _templates()
        .get_template(template)
        .render(
            title=title,
            sections=sections,
            charts=Markup(inert(charts.specs)),
            style=Markup(_asset("report.css")),
            script=Markup(script),
            policy=Markup(POLICY.format(digest=digest)),
            **content,
        )
    )


def render_text(template: str, **content: Any) -> str:
    """A text that is no page, such as Markdown; its values are not escaped."""
    return _templates().get_template(template).render(content)


def inert(value: Any) -> str:
    """JSON that no parser of HTML can take for the end of its script element."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


@cache
def _templates() -> Environment:
    found = Environment(
        loader=FileSystemLoader(HERE),
        autoescape=select_autoescape(["html.j2"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters |= {"number": number, "percent": percent, "duration": duration}
    found.tests["known"] = is_number
    found.globals["anchor"] = anchor
    return found


def anchor(heading: str) -> str:
    """What the navigation points at."""
    return "".join(c if c.isalnum() else "-" for c in heading.lower())


def percent(value: float | None) -> float:
    """A share of a bar's width, in [0, 100]; nothing for what is missing."""
    return 0.0 if value is None or math.isnan(value) else round(100 * min(1.0, max(0.0, value)), 2)


def _asset(name: str) -> str:
    return (HERE / name).read_text(encoding="utf-8")
