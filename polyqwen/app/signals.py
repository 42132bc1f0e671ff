"""What a run says when it is interrupted outside of its training, and its exit status."""

import logging
import multiprocessing
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import NoReturn

from polyqwen.checkpoints.settings_diff import LAST

SIGNALS = (signal.SIGINT, signal.SIGTERM)
STATUSES = tuple(128 + number for number in SIGNALS)


@contextmanager
def farewell(run_dir: str | Path) -> Iterator[None]:
    """On SIGINT or SIGTERM ends the process with 128 + signal and tells of the newest checkpoint.

    For start-up and evaluation, when there is nothing to save; `SaveWhenInterrupted` takes over in
    training, and what it raises passes here too. The interpreter is not taken down, which would
    take seconds that a scheduler may not grant. An ignored signal (``nohup``) stays ignored.
    """
    before = {number: signal.getsignal(number) for number in SIGNALS}

    def leave(number: int, frame: FrameType | None) -> NoReturn:
        print(last_words(number, Path(run_dir)), file=sys.stderr, flush=True)
        if _importing(frame):  # half-imported packages answer an exception with others
            _end_now(128 + number)
        sys.exit(128 + number)

    for number, handler in before.items():
        if handler is not signal.SIG_IGN:
            signal.signal(number, leave)
    try:
        yield
    except SystemExit as leaving:
        if leaving.code in STATUSES:
            _end_now(int(leaving.code))
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _importing(frame: FrameType | None) -> bool:
    """Whether a frame stands within an import."""
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


def last_words(number: int, run_dir: Path) -> str:
    """One line."""
    name = signal.Signals(number).name
    last = run_dir / "checkpoints" / LAST
    if not last.exists():
        return f"interrupted ({name}); this run has no checkpoint yet"
    return f"interrupted ({name}); go on with resume=auto or resume={last.resolve()}"


def _end_now(status: int) -> NoReturn:
    for child in multiprocessing.active_children():
        child.kill()  # loaders, which outlive SIGTERM
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
