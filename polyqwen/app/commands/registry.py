"""Commands of ``python -m polyqwen`` that only hand on what they are given."""

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path


def add_to(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Registers the commands."""
    _add_tokenizer(commands)
    _add_compare(commands)
    _add_policy(commands)
    _add_choices(commands)
    _add_validate(commands)
    _add_report(commands)


def _add_tokenizer(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    command = commands.add_parser("tokenizer", help="make a small tokenizer from a data folder")
    command.add_argument("data", type=Path, help="folder with <task>/train.jsonl")
    command.add_argument("--vocab-size", type=int, default=2048)
    command.add_argument("--to", type=Path, required=True, help="folder to write")
    command.set_defaults(run=_tokenizer)


def _add_compare(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    command = commands.add_parser("compare", help="make a leaderboard of finished runs")
    command.add_argument(
        "folders", type=Path, nargs="+", help="folders of runs, of a sweep or of a study"
    )
    command.add_argument("--baseline", help="variant to compare with")
    command.add_argument("--to", type=Path, help="folder to write; default: FOLDER/leaderboard")
    command.set_defaults(run=_compare)


def _add_policy(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    command = commands.add_parser("policy", help="average the LossRAG policies of finished runs")
    command.add_argument("checkpoints", type=Path, nargs="+", help="of runs with weighting=lossrag")
    command.add_argument("--to", type=Path, required=True, help="file to write")
    command.set_defaults(run=_policy)


def _add_choices(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    command = commands.add_parser("choices", help="show which losses a run chose when, and why")
    command.add_argument("metrics", type=Path, help="a run's csv/metrics.csv")
    command.add_argument("--to", type=Path, required=True, help="folder to write")
    command.set_defaults(run=_choices)


def _add_validate(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    command = commands.add_parser("validate", help="look through a data set before a run does")
    command.add_argument(
        "overrides", nargs="*", metavar="KEY=VALUE", help="as for train.py; data=folder by default"
    )
    command.add_argument("--report", type=Path, help="JSON file to write")
    command.add_argument("--config-dir", type=Path, help="as for train.py")
    command.set_defaults(run=_validate)


def _validate(arguments: argparse.Namespace) -> None:
    from polyqwen.app.commands.validate import validate

    sys.exit(validate(arguments.overrides, arguments.report, arguments.config_dir))


def _add_report(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    command = commands.add_parser("report", help="write the page of a run, a sweep or a study")
    command.add_argument("folder", type=Path, help="folder of a run, of a sweep or of a study")
    command.add_argument("--to", type=Path, help="file to write; default: FOLDER/report.html")
    command.set_defaults(run=_report)


def _report(arguments: argparse.Namespace) -> None:
    from polyqwen.app.commands.report import report

    print(report(arguments.folder, arguments.to))


def _policy(arguments: argparse.Namespace) -> None:
    from polyqwen.weighting.lossrag.transfer import from_checkpoints

    from_checkpoints(arguments.checkpoints, arguments.to)
    print(f"written to {arguments.to}; use it with weighting.policy_from={arguments.to}")


def _choices(arguments: argparse.Namespace) -> None:
    from polyqwen.report.loss_choices import write_choices

    for path in write_choices(arguments.metrics, arguments.to):
        print(path)


def _compare(arguments: argparse.Namespace) -> None:
    from polyqwen.app.commands.compare import compare

    compare(arguments.folders, arguments.baseline, arguments.to)


def _tokenizer(arguments: argparse.Namespace) -> None:
    from polyqwen.data.tokenizer import train_tokenizer

    files = sorted(arguments.data.glob("*/train.jsonl"))
    if not files:
        raise ValueError(f"{arguments.data} has no <task>/train.jsonl")
    train_tokenizer(_texts(files), arguments.vocab_size, arguments.to)
    print(f"written to {arguments.to}; use it with model.tokens.tokenizer={arguments.to}")


def _texts(files: list[Path]) -> Iterator[str]:
    """All texts of all rows, pictures' paths and short codes left out."""
    for file in files:
        with file.open(encoding="utf-8") as lines:
            for line in lines:
                yield from _strings(json.loads(line))


def _strings(value: object) -> Iterator[str]:
    if isinstance(value, dict):
        for key, inner in value.items():
            if key not in ("image", "lang", "source"):
                yield from _strings(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _strings(inner)
    elif isinstance(value, str):
        yield value
