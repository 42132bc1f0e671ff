"""Signal handling outside of training: a run prints how to resume and exits with 128 + signal."""

import ctypes
import logging
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import NoReturn

from polyqwen.checkpoints.sidecar import LAST

SIGNALS = (signal.SIGINT, signal.SIGTERM)
STATUSES = tuple(128 + number for number in SIGNALS)
FORWARDED = (*SIGNALS, signal.SIGHUP)  # by a process that has started others
PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


@contextmanager
def handled_by(
    handler: Callable[[int, FrameType | None], object], numbers: Sequence[signal.Signals]
) -> Iterator[None]:
    """Installs a handler; an ignored signal (``nohup``) stays ignored."""
    before = {number: signal.getsignal(number) for number in numbers}
    for number, former in before.items():
        if former is not signal.SIG_IGN:
            signal.signal(number, handler)
    try:
        yield
    finally:
        for number, former in before.items():
            signal.signal(number, former)


@contextmanager
def exit_when_interrupted(run_dir: str | Path) -> Iterator[None]:
    """On SIGINT or SIGTERM prints `interrupt_message` and ends the process with 128 + signal.

    For start-up and evaluation, when there is nothing to save; `SaveWhenInterrupted` takes over in
    training, and what it raises passes here too. The interpreter is not taken down, which would
    take seconds that a scheduler may not grant.
    """

    def leave(number: int, frame: FrameType | None) -> NoReturn:
        print(interrupt_message(number, Path(run_dir)), file=sys.stderr, flush=True)
        if _importing(frame):  # half-imported packages answer an exception with others
            _end_now(128 + number)
        sys.exit(128 + number)

    with handled_by(leave, SIGNALS):
        try:
            yield
        except SystemExit as leaving:
            if leaving.code in STATUSES:
                _end_now(int(leaving.code))
            raise


def _importing(frame: FrameType | None) -> bool:
    """Whether a frame stands within an import."""
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


def interrupt_message(number: int, run_dir: Path) -> str:
    """One line: the signal, and how to resume the run."""
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


def end_with_parent(parent: int) -> None:
    """Linux: this process gets SIGTERM when its parent ends, however that ends.

    Args:
        parent: its process number; SIGTERM comes at once if it has ended already.
    """
    if _LIBC is not None:
        _LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:
            os.kill(os.getpid(), signal.SIGTERM)
