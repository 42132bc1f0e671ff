"""Configurations that come as the file of a run, perhaps a stranger's."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from polyqwen.config.check import check_texts, resolved
from polyqwen.config.errors import ConfigError
from polyqwen.config.moved_targets import with_current_targets
from polyqwen.config.nodes import check_nodes
from polyqwen.config.ranges import check_ranges
from polyqwen.config.toplevel import FREE


def load_saved_config(path: Path) -> DictConfig:
    """A saved configuration, its targets by today's paths and nothing resolved.

    `checked` it must be before anything is built.

    Raises:
        ConfigError: it is not the configuration of a run.
    """
    cfg = OmegaConf.load(path)
    if not isinstance(cfg, DictConfig):
        raise ConfigError(str(path), "is not the configuration of a run")
    return OmegaConf.create(with_current_targets(OmegaConf.to_container(cfg, resolve=False)))


def checked(cfg: DictConfig, keys: Sequence[str] | None = None) -> DictConfig:
    """What was checked and nothing else: no interpolation is left to be resolved anew.

    Args:
        cfg: as read.
        keys: of the top level that are asked for; None takes all.

    Raises:
        ConfigError: as for a configuration of one's own.
    """
    values: dict[str, Any] = resolved(cfg)
    check_texts(values)
    values = values if keys is None else {key: values[key] for key in keys}
    built = {key: value for key, value in values.items() if key != FREE}
    check_nodes(built)
    check_ranges(built)
    return OmegaConf.create(values)
