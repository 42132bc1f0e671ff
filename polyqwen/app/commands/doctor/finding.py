"""One thing that was looked at."""

from typing import Literal, NamedTuple

Level = Literal["ok", "note", "warn", "stop"]


class Finding(NamedTuple):
    """What was looked at, what is there, and what to do if it is not well.

    Attributes:
        level: ``stop`` if a run would not start or end well, ``warn`` if it might not, ``note`` for
            what is worth knowing.
        what: that was looked at.
        found: there.
        way_out: empty where nothing is to be done.
    """

    level: Level
    what: str
    found: str
    way_out: str = ""


def gigabytes(number: float) -> str:
    """Bytes as a person reads them."""
    return f"{number / 2**30:.1f} GB"
