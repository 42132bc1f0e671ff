"""How numbers, durations and values of a configuration read in tables and pages."""

import math
from collections.abc import Collection, Iterable, Sequence
from typing import Any

MISSING = "–"


def is_number(value: Any) -> bool:
    """Whether a value is known and finite."""
    return isinstance(value, int | float) and math.isfinite(value)


def number(value: Any, digits: int = 3, unit: str = "", sign: bool = False) -> str:
    """A number, or a dash for what is missing or not finite."""
    return f"{value:{'+' if sign else ''}.{digits}f}{unit}" if is_number(value) else MISSING


def duration(seconds: float) -> str:
    """Such as 48 s, 3 min 20 s, 5 h 12 min; a dash for what is not finite."""
    if not is_number(seconds):
        return MISSING
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def yaml_text(value: Any) -> str:
    """A scalar as YAML has it."""
    words = {True: "true", False: "false", None: "null"}
    return words[value] if isinstance(value, bool) or value is None else str(value)


def markdown_table(
    headings: Sequence[str], lines: Iterable[Sequence[str]], left: Collection[int] = (0,)
) -> str:
    """A table whose cells may hold any text but line breaks.

    Args:
        headings: of the columns.
        lines: cells, as many as headings.
        left: columns that are texts; the others are numbers, set to the right.
    """
    rule = "|" + "".join(":--|" if i in left else "--:|" for i in range(len(headings)))
    rows = [
        "| " + " | ".join(cell.replace("|", r"\|") for cell in line) + " |"
        for line in [headings, *lines]
    ]
    return "\n".join([rows[0], rule, *rows[1:]]) + "\n"
