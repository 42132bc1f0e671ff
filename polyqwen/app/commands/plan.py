"""Show what a run will do, before it does it; no weights are loaded, nothing is downloaded."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

CONFIGURATION = 2  # exit code, as that of train.py
MISSING = "data.root"  # a key without which rows alone stay unknown


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The run's overrides, and numbers of rows for data that is not here."""
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="as for train.py")
    parser.add_argument(
        "--rows",
        nargs="+",
        default=[],
        metavar="TASK=ROWS",
        help="plan for so many training rows; all tasks or none",
    )
    parser.add_argument("--json", type=Path, help="file to write, as a run keeps it in plan.json")
    parser.add_argument("--config-dir", type=Path, help="as for train.py")


def run(arguments: argparse.Namespace) -> int:
    """Prints the plan; 2 for a configuration that cannot be run."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from polyqwen.app.console import console
    from polyqwen.config.errors import ConfigError, one_line
    from polyqwen.report.plan import print_plan

    try:
        plan = planned(arguments.overrides, arguments.rows, arguments.config_dir)
    except ConfigError as error:
        print(f"error: {one_line(error)}", file=sys.stderr)
        return CONFIGURATION
    print_plan(plan, console())
    if arguments.json is not None:
        from polyqwen.atomic_files import write_json

        write_json(arguments.json, plan)
    return 0


def planned(
    overrides: Sequence[str], rows: Sequence[str] = (), folder: Path | None = None
) -> dict[str, Any]:
    """The plan of the run that train.py would make of the overrides, as ``plan.json`` has it.

    Args:
        overrides: those of the run.
        rows: TASK=ROWS, for data that is not here; none of them looks at the data.
        folder: further configuration files.

    Raises:
        ConfigError: it cannot be run.
    """
    from omegaconf import OmegaConf

    from polyqwen.app.composed import composed
    from polyqwen.build.plan.make import make_plan
    from polyqwen.build.plan.types import plain
    from polyqwen.config.errors import ConfigError

    try:
        _, values = composed(overrides, folder)
    except ConfigError as error:
        if error.where != MISSING or error.what != "has no value yet":
            raise
        _, values = composed([*overrides, f"{MISSING}=not given"], folder)
    given = _given_rows(rows, list(values["tasks"])) if rows else None
    made: dict[str, Any] = plain(make_plan(OmegaConf.create(values), rows=given))
    return made


def _given_rows(rows: Sequence[str], tasks: Sequence[str]) -> dict[str, Any]:
    """Rows by task.

    Raises:
        ConfigError: not a number >= 1 for each of the run's tasks.
    """
    from polyqwen.build.plan.rows import SplitRows
    from polyqwen.config.errors import ConfigError

    given = dict(item.partition("=")[::2] for item in rows)
    for task, number in given.items():
        if not number.replace("_", "").isdecimal() or int(number) < 1:
            raise ConfigError("--rows", f"{task}={number} is not TASK=ROWS, rows >= 1")
    if set(given) != set(tasks):
        raise ConfigError("--rows", f"names {', '.join(given)}; the tasks are {', '.join(tasks)}")
    return {task: SplitRows(int(given[task]), None, None) for task in tasks}
