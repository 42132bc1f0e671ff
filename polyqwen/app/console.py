"""The terminal, wide enough for a table also where the output goes into a file."""

import logging
import sys
import warnings

from rich.console import Console


def console() -> Console:
    """A console of the terminal's width, or of 120 columns when there is no terminal."""
    return Console(width=None if sys.stdout.isatty() else 120)


def quiet_lightning() -> None:
    """What Lightning logs is said once, by the run's handlers, and its advertisement not at all."""
    for name in ("lightning", "lightning.pytorch", "lightning.fabric"):
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
    rank_zero = logging.getLogger("lightning.pytorch.utilities.rank_zero")
    rank_zero.addFilter(lambda record: "litlogger" not in record.getMessage())
    for message in (
        r".*isinstance\(treespec, LeafSpec\)",  # of torch to Lightning, which walks through batches
        r"Found \d+ module\(s\) in eval mode",  # a frozen vision tower, on purpose
    ):
        warnings.filterwarnings("ignore", message=message)
