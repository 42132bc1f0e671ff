"""Refuses keys given on the command line that nothing reads, with the key that acts instead."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from polyqwen.config.errors import ConfigError
from polyqwen.config.identity import flat_settings
from polyqwen.config.inert_rules import RULES, Composed


def given_keys(overrides: Iterable[str]) -> list[str]:
    """Dotted keys that the command line gives a value; null, which switches off, is none.

    Args:
        overrides: as typed.
    """
    keys = []
    for override in OverridesParser.create().parse_overrides(list(overrides)):
        if not override.is_delete() and override.value() is not None:
            keys.append(str(override.key_or_group))
    return keys


def check_inert(
    cfg: DictConfig, values: Mapping[str, Any], overrides: Iterable[str], dropped: Sequence[str]
) -> None:
    """Refuses a key of the command line that has no effect with the other choices.

    Args:
        cfg: the composed configuration.
        values: it, resolved.
        overrides: the command line's.
        dropped: what `drop_absent_tasks` removed.

    Raises:
        ConfigError: naming the key and what to do instead.
    """
    raw = flat_settings(OmegaConf.to_container(cfg, resolve=False))
    composed = Composed(values, raw, given_keys(overrides), dropped)
    for key in composed.given:
        for pattern, rule in RULES:
            if re.fullmatch(pattern, key) and (reason := rule(composed, key)) is not None:
                raise ConfigError(key, f"has no effect: {reason}")
