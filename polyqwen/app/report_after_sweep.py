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
    """The page of the runs that finished, and lines that say where, and what each key did.

    Never a failure. Nothing where no run finished: what ended the sweep has been said.
    """
    if not any(folder.rglob("results.json")):
        return
    from polyqwen.app.report import PAGE, page_of_runs, short  # imports NumPy and more
    from polyqwen.atomic_files import write_text
    from polyqwen.report.comparison.gather import gather
    from polyqwen.report.comparison.tables import axis_sentences

    page = folder / PAGE
    try:
        found = gather([folder])
        write_text(page, page_of_runs(found, folder, folder))
        lines = [f"page of the sweep: {page}", *axis_sentences(found.axes)]
        print("\n".join(lines), flush=True)
    except Exception as error:  # whatever it is, the runs are done and saved
        what = f"{type(error).__name__}: {short(error)}"
        print(f"warning: no {PAGE} of the sweep was written: {what}", file=sys.stderr, flush=True)
