"""The terminal, wide enough for a table also where the output goes into a file."""

import sys

from rich.console import Console


def console() -> Console:
    """A console of the terminal's width, or of 120 columns when there is no terminal."""
    return Console(width=None if sys.stdout.isatty() else 120)
