"""HTML in which every text is escaped unless it was made by `tag`."""

import html
from collections.abc import Iterable, Sequence

VOID = {"br", "img", "input", "meta", "wbr"}


class Html(str):
    """Markup made here; any other string is a text and gets escaped."""

    __slots__ = ()


def tag(name: str, /, *children: object, **attributes: object) -> Html:
    """An element; strings that are no `Html` are texts.

    Args:
        name: of the element.
        children: texts, `Html`, or lists of them; None and "" are left out.
        attributes: ``cls`` is ``class``, an underscore is a hyphen; None and False are left out,
            True stands alone.
    """
    given = "".join(_attribute(key, value) for key, value in attributes.items())
    if name in VOID:
        return Html(f"<{name}{given}>")
    return Html(f"<{name}{given}>{joined(children)}</{name}>")


def joined(children: Iterable[object]) -> Html:
    """Children after one another, escaped where they are texts."""
    return Html("".join(_text(child) for child in children))


def table(
    headings: Sequence[object],
    lines: Iterable[Sequence[object]],
    *,
    cls: str = "",
    left: int = 1,
) -> Html:
    """A table in a frame of its own that scrolls sideways on narrow screens.

    Args:
        headings: texts or `Html`.
        lines: cells, as many as headings.
        cls: further classes, such as ``sortable``.
        left: so many first columns are texts; the others are numbers, set to the right.
    """
    head = [
        tag("th", heading, scope="col", cls=_side(i, left)) for i, heading in enumerate(headings)
    ]
    body = [
        tag("tr", *(tag("td", cell, cls=_side(i, left)) for i, cell in enumerate(line)))
        for line in lines
    ]
    whole = tag("table", tag("thead", tag("tr", *head)), tag("tbody", *body), cls=cls or None)
    return tag("div", whole, cls="wide")


def _side(column: int, left: int) -> str:
    return "text" if column < left else "number"


def _attribute(key: str, value: object) -> str:
    name = "class" if key == "cls" else key.rstrip("_").replace("_", "-")
    if value is None or value is False:
        return ""
    if value is True:
        return f" {name}"
    return f' {name}="{html.escape(str(value))}"'


def _text(child: object) -> str:
    if child is None:
        return ""
    if isinstance(child, Html):
        return child
    if isinstance(child, list | tuple):
        return joined(child)
    return html.escape(str(child))
