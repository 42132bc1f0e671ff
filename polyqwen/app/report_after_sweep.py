"""A sweep leaves the page of its runs, however it ends."""

import atexit
import os
import sys
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig

RANK = ("RANK", "SLURM_PROCID")  # of a process that torchrun or SLURM started


class SweepPage(Callback):
    """Hydra's callback: ``report.html`` in the sweep's folder when its process ends.

    Not in ``on_multirun_end``: a run that fails ends the sweep, and Hydra then passes that over. An
    interrupted process is taken down at once and leaves no page; ``python -m polyqwen report``
    writes it.
    """

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Notes the folder, before the first run."""
        if all(os.environ.get(name, "0") == "0" for name in RANK):
            atexit.register(write_sweep_page, Path(config.hydra.sweep.dir).absolute())


def write_sweep_page(folder: Path) -> None:
    """The page of the runs that finished, and a line that says where; never a failure.

    Nothing where no run finished: what ended the sweep has been said.
    """
    if not any(folder.rglob("results.json")):
        return
    from polyqwen.app.report import PAGE, report, short  # imports NumPy and more

    try:
        print(f"page of the sweep: {report(folder)}", flush=True)
    except Exception as error:  # whatever it is, the runs are done and saved
        what = f"{type(error).__name__}: {short(error)}"
        print(f"warning: no {PAGE} of the sweep was written: {what}", file=sys.stderr, flush=True)
