"""Look through a data set before a run does."""

import argparse
import logging
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from polyqwen.data.validation.findings import Finding
    from polyqwen.data.validation.scan import Scan

CONFIGURATION = 2  # exit code, as that of train.py


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The run's overrides and where to write the report."""
    parser.add_argument(
        "overrides", nargs="*", metavar="KEY=VALUE", help="as for train.py; data=folder by default"
    )
    parser.add_argument("--report", type=Path, help="JSON file to write")
    parser.add_argument("--config-dir", type=Path, help="as for train.py")


def run(arguments: argparse.Namespace) -> int:
    """Prints what the data set holds and what is wrong with it."""
    return validate(arguments.overrides, arguments.report, arguments.config_dir)


def validate(
    overrides: Sequence[str], report: Path | None = None, folder: Path | None = None
) -> int:
    """Looks through all splits of a run's tasks and prints what it finds.

    Args:
        overrides: those of the run; ``data=folder`` unless they choose data or an experiment.
        report: JSON file to write.
        folder: further configuration files, as with ``train.py --config-dir``.

    Returns:
        Exit code: 0 when a run could start, with warnings or without, 1 when it would stop over
        its data, 2 for a configuration that cannot be run.
    """
    from polyqwen.app.console import console
    from polyqwen.build.precheck import built
    from polyqwen.config.errors import ConfigError, one_line

    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:
        values = _configuration(overrides, folder)
        tasks = {name: built(f"tasks.{name}", node) for name, node in values["tasks"].items()}
        source = built("data.source", values["data"]["source"])
        scans, found = _scans(values, tasks, source)
    except ConfigError as error:
        print(f"error: {one_line(error)}", file=sys.stderr)
        return CONFIGURATION
    from polyqwen.report.validation import print_validation, write_validation

    print_validation(scans, found, console())
    if report is not None:
        write_validation(report, scans, found)
        console().print(f"written to {report}", markup=False, soft_wrap=True)
    return int(any(finding.level == "stops" for finding in found))


def _configuration(overrides: Sequence[str], folder: Path | None) -> dict[str, Any]:
    """The configuration that train.py would make of the overrides, checked as there."""
    from polyqwen.app.composed import composed

    chosen = any(o.lstrip("+").startswith(("data=", "experiment=")) for o in overrides)
    return composed([*([] if chosen else ["data=folder"]), *overrides], folder)[1]


def _scans(
    values: Mapping[str, Any], tasks: Mapping[str, Any], source: Any
) -> "tuple[dict[str, dict[str, Scan]], list[Finding]]":
    """What every split holds, and what that means for the run."""
    from polyqwen.build.precheck import SPLITS, built
    from polyqwen.data.images.embedded import FOLDER
    from polyqwen.data.images.images import Pictures
    from polyqwen.data.rows.bad_rows import BadRows
    from polyqwen.data.tables.labels import LabelBook
    from polyqwen.data.validation.findings import Finding, findings
    from polyqwen.data.validation.scan import Scan

    logging.getLogger("transformers").setLevel(logging.ERROR)  # texts longer than a model takes
    data = values["data"]
    bad = BadRows(data["bad_rows"], data["max_bad_share"])
    prefixes = {name: task.prefix for name, task in tasks.items()}
    tokens = built("model.tokens", values["model"]["tokens"], prefixes=prefixes)
    root = Path(data.get("root") or source.root)
    pictures = Pictures(root, cache_mb=0, store=Path(data["cache"]) / FOLDER)
    book = LabelBook(tasks)
    scans: dict[str, dict[str, Scan]] = {}
    found = []
    for names in _families(tasks):
        task, together = tasks[names[0]], ", ".join(names)
        splits = scans[together] = {}
        for split in SPLITS:
            try:
                reader = source.reader(task.folder or names[0], split)
            except ValueError as error:
                hint = f"{error}; or leave the task out with task=[…]"
                found.append(Finding("stops", together, split, hint))
            else:
                splits[split] = Scan(task, tokens, pictures, book.known(names[0])).read(reader)
        found += findings(together, [tasks[name] for name in names], splits, bad)
    return scans, found


def _families(tasks: Mapping[str, Any]) -> list[list[str]]:
    """Names of tasks, those together that read the same rows in the same way."""
    families: dict[Any, list[str]] = {}
    for name, task in tasks.items():
        read = (sorted(task.fields.items()), task.turn_names, task.info)
        families.setdefault(repr((task.folder or name, *read)), []).append(name)
    return list(families.values())
