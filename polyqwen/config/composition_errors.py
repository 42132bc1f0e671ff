"""Errors of composing a configuration in one line, and the file that a key comes from."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import (
    ConfigCompositionException,
    HydraException,
    MissingConfigException,
    OverrideParseException,
)
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import MarkedYAMLError

from polyqwen.config.conf import options_of
from polyqwen.config.errors import ConfigError, one_line, suggest
from polyqwen.config.signatures import signature_of
from polyqwen.config.toplevel import STUDY

Composition: TypeAlias = HydraException | OmegaConfBaseException | MarkedYAMLError
COMPOSITION = (HydraException, OmegaConfBaseException, MarkedYAMLError)


def explain(error: Composition, keys: Sequence[str]) -> ConfigError:
    """What went wrong while the configuration was composed.

    Args:
        error: as raised.
        keys: top-level keys and groups, to find the nearest among.
    """
    if isinstance(error, OverrideParseException):
        return ConfigError(
            f"override {error.override!r}",
            one_line(str(error.message).partition("\nSee")[0]),
            "write KEY=VALUE, and quotes around special characters",
        )
    if isinstance(error, MissingConfigException):
        return _missing(error)
    if isinstance(error, ConfigCompositionException):
        return _composition(error, keys)
    if isinstance(error, MarkedYAMLError):
        mark = error.problem_mark
        where = f"{mark.name}, line {mark.line + 1}" if mark else "configuration"
        return ConfigError(where, f"is not YAML: {one_line(error.problem)}")
    if isinstance(error, OmegaConfBaseException):
        return ConfigError(error.full_key or "configuration", str(error.msg).partition("\n")[0])
    return ConfigError("configuration", one_line(error))


def _missing(error: MissingConfigException) -> ConfigError:
    group, _, option = str(error.missing_cfg_file).rpartition("/")
    file = re.match(r"In '([^']+)'", str(error))
    source = f" (named in {file.group(1)}.yaml)" if file and "/" in file.group(1) else ""
    where = f"{group}={option}" if group else option
    # Hydra gives no options where a group takes a list
    options = error.options or options_of(group)
    return ConfigError(where, f"there is no such file{source}", suggest(option, options))


def _composition(error: ConfigCompositionException, keys: Sequence[str]) -> ConfigError:
    text = str(error)
    cause = error.__cause__ or error.__context__
    file = re.match(r"In '([^']+)': ", text)
    source = f" (in {file.group(1)}.yaml)" if file else ""
    named = re.search(r"(?:override|delete from config\.|delete|config group|at) '([^']+)'", text)
    if isinstance(cause, MarkedYAMLError | OverrideParseException):
        return explain(cause, keys)
    if text.startswith("Could not override") and isinstance(cause, OmegaConfBaseException):
        return _unknown_key(named.group(1) if named else "?", cause)
    if "No match in the defaults list" in text or "does not exist." in text:
        name = named.group(1) if named else "?"
        return ConfigError(f"{name}{source}", "unknown key or group", suggest(name, keys))
    if "An item is already at" in text and named:
        return ConfigError(named.group(1), "is there already", "leave out the +")
    if text.startswith("Error merging override") and isinstance(cause, OmegaConfBaseException):
        where = text.removeprefix("Error merging override ").partition("\n")[0]
        return ConfigError(where, str(cause.msg).partition("\n")[0])
    if isinstance(cause, OmegaConfBaseException):
        return explain(cause, keys)
    return ConfigError("configuration", one_line(text or cause or "cannot be composed"))


def _unknown_key(override: str, cause: OmegaConfBaseException) -> ConfigError:
    """An override of a key that is not there."""
    where = cause.full_key or override
    parent = cause.parent_node
    name = where.rpartition(".")[2]
    if where == STUDY:
        return ConfigError(where, "no study is chosen", "add study=NAME")
    there = [str(key) for key in parent] if isinstance(parent, DictConfig) else []
    possible = _parameters(parent)
    if name in possible:
        return ConfigError(where, "is not set in the files", f"add it: +{override}=…")
    return ConfigError(where, "unknown key", suggest(name, {*there, *possible} - {"_target_"}))


def _parameters(node: Any) -> set[str]:
    """Keys that the node's target would take too."""
    if not isinstance(node, DictConfig):
        return set()
    plain = OmegaConf.to_container(node)
    assert isinstance(plain, dict)
    try:
        return set(signature_of(str(plain.get("_target_", ""))).parameters)
    except ValueError:
        return set()


def origin(key: str) -> str | None:
    """The last of the composed files that has the key, such as ``experiment/real.yaml``.

    None when it was given on the command line, or in no file, or when Hydra does not run.
    """
    if not HydraConfig.initialized() or not GlobalHydra.instance().is_initialized():
        return None
    hydra = HydraConfig.get()
    path = re.sub(r"\[.*", "", key)
    names = [o.lstrip("+~").partition("=")[0] for o in typed_overrides()]
    if any(f"{path}.".startswith(f"{n}.") or f"{n}.".startswith(f"{path}.") for n in names):
        return None
    loader = GlobalHydra.instance().config_loader()
    overrides = [*_plain(hydra.overrides.hydra), *typed_overrides()]
    found = loader.compute_defaults_list(hydra.job.config_name, overrides, RunMode.RUN)
    sources = loader.get_search_path()
    for default in reversed(found.defaults):
        package = (default.package or "").removeprefix("_global_")
        inner = path if not package else path.removeprefix(f"{package}.")
        if default.config_path is None or (package and inner == path):
            continue
        for source in sources.get_path():
            folder = source.path.removeprefix("file://") if source.path else ""
            file = f"{folder}/{default.config_path.removesuffix('.yaml')}.yaml"
            if folder.startswith("/") and Path(file).is_file():  # the first hides the others
                if _has(file, inner):
                    return f"{default.config_path}.yaml"
                break
    return None


def typed_overrides() -> list[str]:
    """Those that the running Hydra job was given for the configuration itself."""
    return _plain(HydraConfig.get().overrides.task)


def _plain(overrides: Any) -> list[str]:
    """As typed: an override may hold ``${…}``."""
    plain = OmegaConf.to_container(overrides, resolve=False)
    assert isinstance(plain, list)
    return [str(override) for override in plain]


def _has(file: str, key: str) -> bool:
    config = OmegaConf.load(file)
    parent, _, name = key.rpartition(".")
    node = OmegaConf.select(config, parent, throw_on_resolution_failure=False) if parent else config
    return isinstance(node, DictConfig) and name in list(node)
