"""Commands beside training: python -m polyqwen COMMAND."""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path


def main() -> None:
    """Reads the command line and runs the command."""
    parser = argparse.ArgumentParser(prog="python -m polyqwen")
    commands = parser.add_subparsers(dest="command", required=True)
    tokenizer = commands.add_parser("tokenizer", help="make a small tokenizer from a data folder")
    tokenizer.add_argument("data", type=Path, help="folder with <task>/train.jsonl")
    tokenizer.add_argument("--vocab-size", type=int, default=2048)
    tokenizer.add_argument("--to", type=Path, required=True, help="folder to write")
    arguments = parser.parse_args()

    from polyqwen.data.tokenizer import train_tokenizer

    files = sorted(arguments.data.glob("*/train.jsonl"))
    if not files:
        parser.error(f"{arguments.data} has no <task>/train.jsonl")
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


if __name__ == "__main__":
    main()
