"""Mistakes of the user, worded alike: where, what, and the way out."""

from collections.abc import Iterable
from difflib import get_close_matches


class ConfigError(ValueError):
    """A configuration that cannot be run.

    Args:
        where: dotted path of the key, or the file.
        what: what is wrong with it.
        way_out: what to do instead.
    """

    def __init__(self, where: str, what: str, way_out: str = "") -> None:
        self.where, self.what, self.way_out = where, what, way_out
        super().__init__(f"{where}: {what}" + (f"; {way_out}" if way_out else ""))


def suggest(name: str, choices: Iterable[str]) -> str:
    """The nearest of the choices as a question, or all of them; nothing if there are none."""
    known = sorted(map(str, choices))
    near = get_close_matches(name, known, n=2, cutoff=0.6)
    if near:
        return f"did you mean {' or '.join(repr(n) for n in near)}?"
    if not known:
        return ""
    shown = ", ".join(known[:24]) + (", …" if len(known) > 24 else "")
    return f"choose one of {shown}"


def one_line(message: object) -> str:
    """The message without line breaks."""
    return " ".join(str(message).split())
