"""python -m polyqwen mine: hard negatives for a task of a run."""

import argparse
from pathlib import Path


def add_to(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Registers the command."""
    command = commands.add_parser("mine", help="find hard negatives with a run's model")
    add = command.add_argument
    add("folder", type=Path, help="folder of the run")
    add("--task", required=True, help="whose training rows")
    add("--to", type=Path, required=True, help="data folder to write")
    add("--checkpoint", default="last", help="last, best or a path")
    add("--negatives", type=int, default=4, help="of each row at most")
    add("--margin", type=float, help="below the positive's cosine; default 0.05")
    add("--relative-margin", type=float, help="below the positive's cosine, as a part of it")
    add("--max-cosine", type=float, default=1.0)
    add("--skip", type=int, default=0, help="nearest documents to pass over")
    add("--window", type=int, default=100, help="nearest documents to look at")
    add("--min-score", type=float, default=0.8, help="of a positive, where scored")
    add("--block", type=int, default=1024, help="queries and documents compared at a time")
    command.set_defaults(run=_mine)


def _mine(arguments: argparse.Namespace) -> None:
    from polyqwen.app.commands.mine import mine, told
    from polyqwen.inference.mining.rules import Rules

    margin = arguments.margin
    if margin is None and arguments.relative_margin is None:
        margin = 0.05
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
