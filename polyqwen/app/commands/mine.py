"""Find hard negatives with a run's model."""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The run, the task, the folder to write and the rules for negatives."""
    add = parser.add_argument
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


def run(arguments: argparse.Namespace) -> None:
    """Writes a data folder whose rows have hard negatives, and prints how many."""
    from polyqwen.inference.mining.mine import mine
    from polyqwen.inference.mining.search import Rules

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
    print(_summary(report))
    print(f"written to {arguments.to}; train on it with data.root={arguments.to}")


def _summary(report: Mapping[str, Any]) -> str:
    counts = (
        f"{report['rows_with_negatives']} of {report['rows']} rows have hard negatives, "
        f"{report['negatives_per_row']:.2f} each, of {report['distinct_documents']} documents"
    )
    if report["mean_cosine_of_negatives"] is None:
        return counts
    return (
        f"{counts}\nmean cosine of positives {report['mean_cosine_of_positives']:.3f}, "
        f"of negatives {report['mean_cosine_of_negatives']:.3f}"
    )
