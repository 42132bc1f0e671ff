"""The configuration, to be searched, and the machine."""

from collections.abc import Mapping
from typing import Any

from polyqwen.report.page.markup import Html, table, tag
from polyqwen.runs.run_folder import RunFolder


def configuration(run: RunFolder) -> list[Html]:
    """Every value by its key; what the command line gave stands first and is marked."""
    given = {item.lstrip("+~").partition("=")[0] for item in run.overrides}
    command = f"python train.py {' '.join(run.overrides)}".strip()
    return [tag("p", "Started with ", tag("code", command)), searchable(run.settings, given)]


def searchable(settings: Mapping[str, Any], marked: set[str] = frozenset()) -> Html:  # type: ignore[assignment]
    """A table with a field that filters it."""
    rows = []
    for key in sorted(settings, key=lambda key: (key not in marked, key)):
        cells = tag("td", tag("code", _breakable(key))), tag("td", tag("code", told(settings[key])))
        rows.append(tag("tr", *cells, cls="chosen" if key in marked else None))
    field = tag(
        "input",
        type="search",
        placeholder="filter: words of key or value",
        aria_label="Filter the configuration",
        data_filters="settings",
    )
    body = tag("table", tag("tbody", *rows), id="settings", cls="settings")
    shown = tag(
        "details", tag("summary", f"{len(rows)} values"), field, tag("div", body, cls="wide")
    )
    return shown


def _breakable(key: str) -> list[object]:
    """A long key may be broken after its dots."""
    parts = key.split(".")
    pieces: list[object] = [piece for part in parts[:-1] for piece in (f"{part}.", tag("wbr"))]
    return [*pieces, parts[-1]]


def told(value: Any) -> str:
    """As in YAML."""
    words = {True: "true", False: "false", None: "null"}
    return words[value] if isinstance(value, bool) or value is None else str(value)


def environment(run: RunFolder) -> list[Html]:
    """What trained the model, as far as it was kept."""
    lines = [[name, told(value)] for name, value in run.environment.items()]
    return [table(["", ""], lines, left=2)] if lines else []
