"""Make a small tokenizer from a data folder."""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The data, the size of the vocabulary and the folder to write."""
    parser.add_argument("data", type=Path, help="folder with <task>/train.jsonl")
    parser.add_argument("--vocab-size", type=int, default=2048)
    parser.add_argument("--to", type=Path, required=True, help="folder to write")


def run(arguments: argparse.Namespace) -> None:
    """Trains a tokenizer on all texts of all training rows."""
    from polyqwen.data.tokens import train_tokenizer

    files = sorted(arguments.data.glob("*/train.jsonl"))
    if not files:
        raise ValueError(f"{arguments.data} has no <task>/train.jsonl")
    train_tokenizer(_texts(files), arguments.vocab_size, arguments.to)
    print(f"written to {arguments.to}; use it with model.tokens.tokenizer={arguments.to}")


def _texts(files: list[Path]) -> Iterator[str]:
    """All texts of all rows, without the paths of images and short codes."""
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
