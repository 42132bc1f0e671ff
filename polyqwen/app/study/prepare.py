"""Makes the data that runs share, before they begin: python -m polyqwen.app.study.prepare CONFIG…

Runs that begin together would make the same tables side by side. That is safe, since each writes
under a name of its own and renames, but it is done twice.
"""

import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from polyqwen.app.entry import FULL, errors_of_the_run
from polyqwen.atomic_files import write_text


def distinct(configurations: Iterable[DictConfig], folder: Path) -> list[Path]:
    """Saves one configuration for each data set that the runs need, and returns the files."""
    seen: dict[str, Path] = {}
    for cfg in configurations:
        key = OmegaConf.to_yaml(_shared(cfg))
        if key not in seen:
            seen[key] = folder / f"{len(seen)}.yaml"
            write_text(seen[key], OmegaConf.to_yaml(cfg, resolve=True))
    return list(seen.values())


def _shared(cfg: DictConfig) -> Any:
    """What the prepared tables follow from."""
    plain: Any = OmegaConf.to_container(cfg, resolve=True)
    tasks = {name: {**task, "share": None} for name, task in plain["tasks"].items()}
    names = ("source", "min_visual_tokens", "max_visual_tokens", "bad_rows", "cache")
    data = {key: plain["data"].get(key) for key in names}
    return OmegaConf.create({"tasks": tasks, "data": data, "tokens": plain["model"]["tokens"]})


def main() -> None:
    """Prepares the data of all configurations named on the command line."""
    with errors_of_the_run(os.environ.get(FULL) == "1"):
        from polyqwen.build.instantiate import make

        for path in sys.argv[1:]:
            cfg = OmegaConf.load(path)
            tasks = {name: make(node) for name, node in cfg.tasks.items()}
            prefixes = {name: task.prefix for name, task in tasks.items()}
            make(
                cfg.data,
                tasks=tasks,
                tokens=make(cfg.model.tokens, prefixes=prefixes),
                curriculum=make(cfg.curriculum, {name: t.share for name, t in tasks.items()}),
            ).prepare_data()


if __name__ == "__main__":
    main()
