"""Composes and checks every run of a study before the first one starts."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra import compose
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig

from polyqwen.app.study.plan import Job
from polyqwen.config.check import check
from polyqwen.config.composition_errors import COMPOSITION, explain
from polyqwen.config.errors import ConfigError
from polyqwen.config.identity import comparable_settings
from polyqwen.config.toplevel import CONF, schema_of

PRIMARY = "train"


def compose_all(
    jobs: Sequence[Job], precheck: Callable[[dict[str, Any]], None]
) -> dict[Job, DictConfig]:
    """The configuration of every run.

    Runs of one variant differ in seed and folder only, so a variant is composed and checked once.

    Raises:
        ConfigError: naming the variant that cannot be run.
    """
    loader = GlobalHydra.instance().config_loader()
    schema = schema_of(CONF, PRIMARY, loader.get_group_options("task"))
    composed: dict[str, DictConfig] = {}
    configurations = {}
    for job in jobs:
        if job.variant not in composed:
            try:
                cfg = compose(PRIMARY, overrides=[*job.overrides, folder_override(job)])
                precheck(check(cfg, schema))
            except COMPOSITION as error:
                explained = explain(error, [*schema.keys, *schema.groups])
                raise ConfigError(f"study.variants.{job.variant}", str(explained)) from error
            except ConfigError as error:
                raise ConfigError(f"study.variants.{job.variant}", str(error)) from error
            composed[job.variant] = cfg
        cfg = composed[job.variant].copy()
        cfg.seed, cfg.run_dir = job.seed, str(job.folder)
        configurations[job] = cfg
    return configurations


def folder_override(job: Job) -> str:
    """``run_dir='…'``, quoted for the grammar of overrides."""
    return f"run_dir={quoted(str(job.folder))}"


def quoted(text: str) -> str:
    """A value that may hold any character."""
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def differences(wanted: DictConfig, found: Mapping[str, Any]) -> list[str]:
    """``key: found instead of wanted`` for every setting that makes two runs different ones."""
    first, second = (comparable_settings(c, Path(str(c["run_dir"]))) for c in (wanted, found))
    keys = {k for k in first | second if first.get(k, "–") != second.get(k, "–")} - {"log_dir"}
    return [f"{k}: {second.get(k, '–')} instead of {first.get(k, '–')}" for k in sorted(keys)]
