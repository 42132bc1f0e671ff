"""Trains an embedding model: python train.py [experiment=NAME] [key=value …]."""

from typing import Any

from omegaconf import DictConfig

from polyqwen.cli.entry import command


def main(cfg: DictConfig) -> None:
    """One run, or one job of a sweep."""
    from polyqwen.cli.train import train

    train(cfg)


def precheck(values: dict[str, Any]) -> None:
    """What needs no model: constructors of the light parts, files that must be there."""
    from polyqwen.cli.light import check_values

    check_values(values)


if __name__ == "__main__":
    command("train", main, precheck)
