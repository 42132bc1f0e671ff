"""The configuration that train.py would make of overrides, for commands that look at it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra import initialize_config_dir
from omegaconf import DictConfig

from polyqwen.app.entry import compose_train
from polyqwen.config.errors import ConfigError
from polyqwen.config.hydra_guard import use_working_folder
from polyqwen.config.toplevel import CONF


def composed(
    overrides: Sequence[str], folder: Path | None = None
) -> tuple[DictConfig, dict[str, Any]]:
    """The configuration as composed, and as checked values.

    Args:
        overrides: those of the run; it has no folder of its own.
        folder: further configuration files, as with ``train.py --config-dir``.

    Raises:
        ConfigError: it cannot be composed, or not be run.
    """
    use_working_folder("train")  # as every command that composes
    own = [*overrides, "run_dir=."]
    if folder is not None:
        if not folder.is_dir():
            raise ConfigError("--config-dir", f"{folder} is not a folder")
        own.append(f"hydra.searchpath=['file://{folder.resolve()}']")
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose_train(own)
