"""What has been shown to work with ``trainer=fsdp``; the rest is refused before anything runs."""

import os
from collections.abc import Mapping
from typing import Any

from hydra.utils import get_class

from polyqwen.config.errors import ConfigError


def check_sharding(values: Mapping[str, Any]) -> None:
    """Refuses what needs weights outside of a training step, or was not compared with one process.

    Args:
        values: the resolved configuration.

    Raises:
        ConfigError: naming the key and the way out.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) < 2:
        raise ConfigError(
            "trainer.strategy", "fsdp divides weights among processes; set trainer.devices above 1"
        )
    weighting = values["weighting"]
    if weighting.get("gram") is not None:
        raise ConfigError(
            "weighting.gram",
            "gradients of single tasks are not taken with trainer=fsdp; use trainer=default",
        )
    if get_class(weighting["_target_"]).needs_trusted:  # type: ignore[attr-defined]
        raise ConfigError(
            "weighting", "trusted rows are not looked at with trainer=fsdp; use trainer=default"
        )
    tuning = values["model"].get("tuning")
    if tuning is not None and not get_class(tuning["_target_"]).full:  # type: ignore[attr-defined]
        raise ConfigError(
            "model.tuning",
            "only full is shown to work with trainer=fsdp; use model/tuning=full or "
            "trainer=default",
        )
    mode = (values.get("large_batch") or {}).get("mode", "off")
    if mode not in ("off", "checkpoint"):
        raise ConfigError(
            "large_batch.mode",
            f"{mode} is not shown to work with trainer=fsdp; use large_batch=off or checkpoint",
        )
