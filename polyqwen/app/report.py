"""Writes the page of a run, or of all runs of a sweep or a study."""

import json
import logging
from pathlib import Path

from polyqwen.atomic_files import write_text
from polyqwen.report.comparison.gather import UNTITLED, Comparison, gather
from polyqwen.report.comparison.page import PAGE, comparison_page
from polyqwen.report.run_page import run_page
from polyqwen.runs.environment import environment
from polyqwen.runs.run_folder import ENVIRONMENT_FILE, RunFolder

log = logging.getLogger(__name__)


def report(path: Path, to: Path | None = None) -> Path:
    """Writes the page and returns where.

    Args:
        path: folder of a run, or one that holds the runs of a sweep or a study.
        to: file to write; None: ``report.html`` in the folder.

    Raises:
        ValueError: there is no such folder, or no run in it.
    """
    if not path.is_dir():
        raise ValueError(f"there is no folder {path}; give the folder of a run, a sweep or a study")
    out = path / PAGE if to is None else to
    if (path / "config.yaml").is_file():
        text = run_page(RunFolder(path))
    else:
        text = page_of_runs(gather([path]), path, out.parent)
    write_text(out, text)
    return out


def page_of_runs(found: Comparison, path: Path, seen_from: Path) -> str:
    """The page of a sweep or a study.

    Args:
        found: its runs, compared.
        path: its folder.
        seen_from: folder of the page.
    """
    title = path.absolute().name if found.words.title == UNTITLED else found.words.title
    return comparison_page(found, title, path, seen_from)


def write_after_training(folder: Path) -> None:
    """The page of a run that has just ended, with its machine; never the reason for a failure."""
    try:
        write_text(folder / ENVIRONMENT_FILE, json.dumps(environment(), indent=2))
        report(folder)
    except Exception as error:  # whatever it is, the run itself is done and saved
        log.warning("no report was written: %s: %s", type(error).__name__, short(error))


def write_again(folder: Path) -> None:
    """The page with what was added to the folder since; never the reason for a failure."""
    try:
        report(folder)
    except Exception as error:
        log.warning("no report was written: %s: %s", type(error).__name__, short(error))


def short(error: BaseException) -> str:
    """What went wrong, short enough for a line."""
    return " ".join(str(error).split())[:200]
