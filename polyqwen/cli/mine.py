"""python -m polyqwen mine: hard negatives for a task of a run."""

import argparse
from pathlib import Path

from polyqwen.mining.rules import Rules

DEFAULT = Rules()


def add_to(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Registers the command."""
    command = commands.add_parser(
        "mine", help="give training rows hard negatives, by a run's model"
    )
    add = command.add_argument
    add("folder", type=Path, help="folder of the run")
    add("--task", required=True, help="whose training rows")
    add("--to", type=Path, required=True, help="data folder to write")
    add("--checkpoint", default="last", help="last, best or a path")
    add("--negatives", type=int, default=DEFAULT.negatives, help="of each row at most")
    add("--margin", type=float, help="below the positive's cosine; default 0.05")
    add("--relative-margin", type=float, help="below the positive's cosine, as a part of it")
    add("--max-cosine", type=float, default=DEFAULT.max_cosine)
    add("--skip", type=int, default=DEFAULT.skip, help="nearest documents to pass over")
    add("--window", type=int, default=DEFAULT.window, help="nearest documents to look at")
    add("--min-score", type=float, default=DEFAULT.min_score, help="of a positive, where scored")
    add("--block", type=int, default=1024, help="queries and documents compared at a time")
    command.set_defaults(run=_mine)


def _mine(arguments: argparse.Namespace) -> None:
    from polyqwen.cli.mining import mine, told

    margin = arguments.margin
    if margin is None and arguments.relative_margin is None:
        margin = DEFAULT.margin
    rules = Rules(
        arguments.negatives,
        margin,
        arguments.relative_margin,
        arguments.max_cosine,
        arguments.skip,
        arguments.window,
        arguments.min_score,
    ).check()
    report = mine(
        arguments.folder,
        arguments.task,
        arguments.to,
        rules,
        checkpoint=arguments.checkpoint,
        block=arguments.block,
    )
    print(told(report, arguments.to))
