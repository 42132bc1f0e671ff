"""Show which losses a run chose when, and why."""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The run's logged metrics and the folder to write."""
    parser.add_argument("metrics", type=Path, help="a run's csv/metrics.csv")
    parser.add_argument("--to", type=Path, required=True, help="folder to write")


def run(arguments: argparse.Namespace) -> None:
    """Writes tables and plots of the choices, and prints their paths."""
    from polyqwen.report.loss_choices import write_choices

    for path in write_choices(arguments.metrics, arguments.to):
        print(path)
