"""Loader processes and signals."""

import signal

LONGER = 120  # seconds


def outlive(worker: int) -> None:
    """Lets a loader process outlive signals that are meant for the run.

    Ctrl-C and schedulers tell all processes at once. A loader that obeyed would be missed before
    the run has finished its step and saved; it ends with the run, or a while after the signal.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: signal.alarm(LONGER))
