"""Average the LossRAG policies of finished runs."""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The checkpoints and the file to write."""
    parser.add_argument("checkpoints", type=Path, nargs="+", help="of runs with weighting=lossrag")
    parser.add_argument("--to", type=Path, required=True, help="file to write")


def run(arguments: argparse.Namespace) -> None:
    """Writes a policy that a run can start from."""
    from polyqwen.weighting.lossrag.transfer import from_checkpoints

    from_checkpoints(arguments.checkpoints, arguments.to)
    print(f"written to {arguments.to}; use it with weighting.policy_from={arguments.to}")
