"""What Hydra composes from, and its own settings that build objects or run code, checked before."""

import os
from collections.abc import Mapping
from functools import wraps
from typing import Any

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.override_parser.types import Override
from hydra.core.plugins import Plugins
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import DictConfig, OmegaConf

from polyqwen.config.composition_errors import COMPOSITION, explain
from polyqwen.config.conf import conf_folders
from polyqwen.config.errors import ConfigError
from polyqwen.config.nested import entries
from polyqwen.config.replaced_targets import replace_targets

CORE = "hydra._internal.core_plugins"
SUBMITIT = "hydra_plugins.hydra_submitit_launcher.submitit_launcher"
PLUGINS: dict[str, dict[str, tuple[str, ...]]] = {  # target -> keys that would run or open anything
    "launcher": {
        f"{CORE}.basic_launcher.BasicLauncher": (),
        f"{SUBMITIT}.LocalLauncher": (),
        f"{SUBMITIT}.SlurmLauncher": ("setup", "additional_parameters"),
    },
    "sweeper": {
        f"{CORE}.basic_sweeper.BasicSweeper": (),
        "hydra_plugins.hydra_optuna_sweeper.optuna_sweeper.OptunaSweeper": ("custom_search_space",),
    },
}
CALLBACKS = {"sweep_page": {"_target_": "polyqwen.app.report_after_sweep.SweepPage"}}
SAMPLERS = tuple(f"optuna.samplers.{name}Sampler" for name in ("TPE", "Random", "CmaEs", "NSGAII"))
DATABASE = "sqlite:///"  # a file; other storages are reached over the network
SEARCH_PATH = "hydra.searchpath"
LOGGING = ("job_logging", "hydra_logging")
CLASSES = (
    "logging.FileHandler",
    "logging.NullHandler",
    "logging.StreamHandler",
    "logging.handlers.RotatingFileHandler",
)
STREAMS = ("ext://sys.stdout", "ext://sys.stderr")
TEXTS = ("filename", "format", "datefmt")  # keys of logging whose values are texts, not names


def guard_composition() -> None:
    """From here on, Hydra composes no configuration whose ``hydra`` node `check_hydra` refuses.

    Hydra sets up logging and builds its callbacks before it calls the job, so that the job's own
    check would come too late. A ``_target_`` of the command line begins its node anew, see
    `replace_targets`.
    """
    plain = ConfigLoaderImpl.load_configuration
    if hasattr(plain, "guarded"):
        return
    apply = ConfigLoaderImpl._apply_overrides_to_config

    def apply_to_replaced(overrides: list[Override], cfg: DictConfig) -> None:
        replace_targets(cfg, overrides)
        apply(overrides, cfg)

    @wraps(plain)
    def guarded(*args: Any, **kwargs: Any) -> DictConfig:
        cfg = plain(*args, **kwargs)
        node = OmegaConf.to_container(cfg.hydra, resolve=False)
        assert isinstance(node, dict)
        check_hydra({str(key): value for key, value in node.items()})
        return cfg

    guarded.guarded = True  # type: ignore[attr-defined]
    ConfigLoaderImpl.load_configuration = guarded  # type: ignore[method-assign]
    ConfigLoaderImpl._apply_overrides_to_config = staticmethod(apply_to_replaced)  # type: ignore[method-assign]


def check_hydra(node: Mapping[str, Any]) -> None:
    """Checks a ``hydra`` node as composed, interpolations unresolved.

    Raises:
        ConfigError: a callback, plug-in, logging class or environment variable that may not be set.
    """
    if node.get("callbacks") not in (None, {}, CALLBACKS):
        raise ConfigError("hydra.callbacks", "may not be set", "write a callback of the run")
    for key in PLUGINS:
        sweep = node.get("sweep")
        _check_plugin(
            key, node.get(key), str(sweep.get("dir") if isinstance(sweep, Mapping) else "")
        )
    for path, name, value in entries({k: v for k, v in node.items() if k != "callbacks"}):
        sampler = path == "sweeper.sampler._target_" and value in SAMPLERS
        if name == "_target_" and not sampler and path.removesuffix("._target_") not in PLUGINS:
            raise ConfigError(f"hydra.{path}", "nothing is built here", "leave it out")
    for key in LOGGING:
        _check_logging(node.get(key), f"hydra.{key}")
    job = node.get("job")
    job = job if isinstance(job, Mapping) else {}
    if not str(job.get("name") or "").isprintable():
        raise ConfigError("hydra.job.name", "must be one line", "it becomes one of a script")
    variables = job.get("env_set")
    for name, value in variables.items() if isinstance(variables, Mapping) else ():
        if os.environ.get(name) != value:  # those of env_copy are there already
            raise ConfigError(f"hydra.job.env_set.{name}", "may not be set", "set it in the shell")
    if variables and not isinstance(variables, Mapping):
        raise ConfigError("hydra.job.env_set", "may not be set", "set it in the shell")


def _check_plugin(key: str, plugin: Any, sweep_dir: str) -> None:
    """A launcher or sweeper: one of ours, without what would run commands or open addresses."""
    where = f"hydra.{key}"
    given = plugin.get("_target_") if isinstance(plugin, Mapping) else plugin
    if not isinstance(plugin, Mapping) or given not in PLUGINS[key]:
        known = next(iter(PLUGINS[key]))
        raise ConfigError(f"{where}._target_", f"{given} is not allowed", f"leave it at {known}")
    for name in PLUGINS[key][str(given)]:
        if plugin.get(name):
            raise ConfigError(f"{where}.{name}", "may not be set", "leave it out")
    for name, value in plugin.items():
        if key == "launcher" and isinstance(value, str) and not value.isprintable():
            raise ConfigError(f"{where}.{name}", "must be one line", "it becomes one of a script")
    if key == "launcher" and SUBMITIT in str(given) and "${stamp:}" in sweep_dir:
        what = "is named by the time, which each job would take anew"
        raise ConfigError("hydra.sweep.dir", what, "give hydra.sweep.dir=logs/NAME")
    if not str(plugin.get("storage") or DATABASE).startswith(DATABASE):
        raise ConfigError(f"{where}.storage", "is not a file", f"give {DATABASE}FILE or null")


def _check_logging(node: Any, path: str) -> None:
    """Python's logging calls what stands under ``()`` and ``class``, and reads ``ext://…``."""
    for where, key, value in entries(node, path):
        if key in ("()", "."):
            raise ConfigError(where, "is not allowed", "use a class of logging")
        if key == "class" and value not in CLASSES:
            raise ConfigError(where, f"{value} is not allowed", f"use {', '.join(CLASSES)}")
        read = isinstance(value, str) and key not in TEXTS and value not in STREAMS
        if read and ("://" in value or "${" in value):
            raise ConfigError(where, f"{value} is not allowed", "write the value itself")


class WorkingFolder(SearchPathPlugin):
    """Adds ``./conf``, if there is one, in front of the folder that the command names."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Called by Hydra when it makes a search path."""
        for folder in conf_folders()[:-1]:
            search_path.prepend("working-folder", f"file://{folder}", anchor="main")


def use_working_folder(primary: str) -> None:
    """From here on Hydra finds files of the working folder; they are checked like any other.

    Args:
        primary: name of the primary file; one in ``./conf`` replaces the package's.

    Raises:
        ConfigError: that file is broken, or extends the search path, which may import packages
            (``pkg://``).
    """
    Plugins.instance().register(WorkingFolder)
    for folder in conf_folders()[:-1]:
        file = folder / f"{primary}.yaml"
        try:
            found = OmegaConf.select(OmegaConf.load(file), SEARCH_PATH) if file.is_file() else None
        except COMPOSITION as error:
            raise explain(error, ()) from error
        if found is not None:
            hint = "give it on the command line, or use --config-dir"
            raise ConfigError(SEARCH_PATH, f"may not be set in {file}", hint)
