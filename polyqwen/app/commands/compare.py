"""Make a leaderboard of finished runs."""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The runs, the variant to compare with and the folder to write."""
    parser.add_argument(
        "folders", type=Path, nargs="+", help="folders of runs, of a sweep or of a study"
    )
    parser.add_argument("--baseline", help="variant to compare with")
    parser.add_argument("--to", type=Path, help="folder to write; default: FOLDER/leaderboard")


def run(arguments: argparse.Namespace) -> None:
    """Writes the leaderboard and prints it."""
    from polyqwen.app.compare import compare

    compare(arguments.folders, arguments.baseline, arguments.to)
