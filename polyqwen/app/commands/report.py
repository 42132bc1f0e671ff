"""Write the page of a run, a sweep or a study."""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The folder of the runs and the file to write."""
    parser.add_argument("folder", type=Path, help="folder of a run, of a sweep or of a study")
    parser.add_argument("--to", type=Path, help="file to write; default: FOLDER/report.html")


def run(arguments: argparse.Namespace) -> None:
    """Writes the page and prints where."""
    from polyqwen.app.report import report

    print(report(arguments.folder, arguments.to))
