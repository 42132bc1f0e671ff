"""Which file a key of the composed configuration comes from."""

import re
from pathlib import Path
from typing import Any

from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf


def origin(key: str) -> str | None:
    """The last of the composed files that has the key, such as ``experiment/real.yaml``.

    None when it was given on the command line, or in no file, or when Hydra does not run.
    """
    if not HydraConfig.initialized() or not GlobalHydra.instance().is_initialized():
        return None
    hydra = HydraConfig.get()
    path = re.sub(r"\[.*", "", key)
    names = [o.lstrip("+~").partition("=")[0] for o in _plain(hydra.overrides.task)]
    if any(f"{path}.".startswith(f"{n}.") or f"{n}.".startswith(f"{path}.") for n in names):
        return None
    loader = GlobalHydra.instance().config_loader()
    overrides = [*_plain(hydra.overrides.hydra), *_plain(hydra.overrides.task)]
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
