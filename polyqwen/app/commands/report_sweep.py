"""Reads the runs of a sweep or a study for their common page."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from polyqwen.app.compare import gather
from polyqwen.report.sweep_files import Failed, SweepFiles, SweepRun
from polyqwen.report.sweep_page import sweep_page
from polyqwen.runs.identity import is_compared
from polyqwen.runs.run_folder import RunFolder
from polyqwen.runs.scores import score

PAGE = "report.html"


def sweep(folder: Path, seen_from: Path) -> str:
    """The page of all runs in a folder.

    Args:
        folder: of a sweep or a study.
        seen_from: folder of the page, for links to the pages of the runs.

    Raises:
        ValueError: there are no runs, or none is finished.
    """
    board, variants, claims, words, unfinished = gather([folder])
    runs = [
        SweepRun(
            variant=row.name,
            seed=run.seed,
            score=score(run, board.tasks),
            fit_seconds=float(run.timing.get("fit_seconds", float("nan"))),
            folder=_relative(run.path, folder),
            page=_page(run.path, seen_from),
            history=run.history,
            settings=_settings(run),
        )
        for row in board.rows
        for run in variants[row.name]
    ]
    failed = [_failed(run, folder) for run in unfinished]
    title = words.title if words.title != "Comparison of runs" else folder.absolute().name
    files = SweepFiles(title, board, claims, words, runs, failed, _differing(runs))
    return sweep_page(files)


def _relative(run: Path, folder: Path) -> str:
    return os.path.relpath(run.absolute(), folder.absolute())


def _page(run: Path, seen_from: Path) -> str:
    """Where the run's own page is, as seen from this one; empty if it has none."""
    page = run / PAGE
    return os.path.relpath(page.absolute(), seen_from.absolute()) if page.is_file() else ""


def _settings(run: RunFolder) -> dict[str, Any]:
    return {k: v for k, v in run.settings.items() if is_compared(k) and not _of_place(v, run.path)}


def _of_place(value: Any, folder: Path) -> bool:
    """Whether a value names the run's own folder: another in every run, and no setting."""
    return isinstance(value, str) and folder.absolute().name in Path(value).parts


def _failed(run: RunFolder, folder: Path) -> Failed:
    name = f"{run.variant}, seed {run.seed}" if run.variant else ""
    return Failed(name, _relative(run.path, folder), run.problem)


def _differing(runs: Sequence[SweepRun]) -> dict[str, list[Any]]:
    """Key -> its value in each run, of settings that are not the same everywhere."""
    keys = dict.fromkeys(key for run in runs for key in run.settings)
    columns: Mapping[str, list[Any]] = {k: [run.settings.get(k) for run in runs] for k in keys}
    told = {k: {json.dumps(v, default=str) for v in column} for k, column in columns.items()}
    return {key: column for key, column in columns.items() if len(told[key]) > 1}
