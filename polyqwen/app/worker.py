"""One process of several: python -m polyqwen.app.worker CONFIG; `launch` starts it."""

import logging
import os
import sys
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from polyqwen.app.entry import FULL, errors_of_the_run
from polyqwen.app.launch import LAUNCHER, error_file
from polyqwen.app.signals import end_with_parent, exit_when_interrupted
from polyqwen.atomic_files import write_text
from polyqwen.config.errors import one_line, user_message


def main() -> None:
    """Trains with a resolved configuration; only rank 0 speaks on the terminal."""
    end_with_parent(int(os.environ[LAUNCHER]))
    path = Path(sys.argv[1])
    cfg = OmegaConf.load(path)
    assert isinstance(cfg, DictConfig)
    handlers: list[logging.Handler] = [logging.StreamHandler()]
    if os.environ["RANK"] == "0":
        handlers.append(logging.FileHandler(path.with_name("train.log"), encoding="utf-8"))
    logging.basicConfig(
        level=logging.INFO,
        format="%(asctime)s %(levelname)s %(message)s",
        datefmt="%H:%M:%S",
        handlers=handlers,
    )
    with errors_of_the_run(os.environ.get(FULL) == "1"), exit_when_interrupted(cfg.run_dir):
        try:
            from polyqwen.app.train import train  # seconds, in which we may be interrupted

            train(cfg)
        except Exception as error:
            text = user_message(error) or f"{type(error).__name__}: {error}"
            note = path.with_name(error_file(os.environ["RANK"]))
            write_text(note, one_line(text))
            raise


if __name__ == "__main__":
    main()
