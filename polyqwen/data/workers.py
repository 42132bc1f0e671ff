"""Loader processes: they outlive signals, and never the run."""

import os
import signal
import threading
import time

LONGER = 120  # seconds
LOOK = 1.0  # seconds between looks at the run


def outlive(worker: int) -> None:
    """Lets a loader process outlive signals that are meant for the run, and end with it.

    Ctrl-C and schedulers tell all processes at once. A loader that obeyed would be missed before
    the run has finished its step and saved; it ends with the run, or a while after the signal.

    A run that was killed tells nobody. Torch's loaders notice, but then wait until somebody has
    taken the batches that they made, for ever if those fill the pipe.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: signal.alarm(LONGER))
    threading.Thread(target=_follow, args=(os.getppid(),), daemon=True).start()


def _follow(run: int) -> None:
    while os.getppid() == run:
        time.sleep(LOOK)
    os._exit(1)
