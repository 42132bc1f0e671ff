"""Settings of a run: which must be equal to resume it, and which tell experiments apart."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from polyqwen.config.nested import matching

# what may differ between a run and the one that goes on with it
OWN = ("run_dir", "ckpt_path", "resume", "resume_allow", "metadata")
# and what has no part in the result
HARMLESS = (
    *("logger", "log_dir", "data_cache", "data.cache", "data.num_workers"),
    *("data.picture_cache_mb", "process_group_timeout", "callbacks.progress", "callbacks.last"),
    *("trainer.enable_progress_bar", "trainer.enable_model_summary"),
)
# pattern of a key that came later -> what runs without it did; nothing new where it says the same
CAME_LATER = {"tasks.*.negatives_from": "both"}
PROCESSES = ("trainer.devices", "trainer.num_nodes")
# whose other values make no other experiment: where things go, and how often one looks
NOT_COMPARED = (
    *("hydra", "run_dir", "data_cache", "log_dir", "metadata", "logger", "validate_every"),
    *("baseline", "ablations", "callbacks.dashboard", "callbacks.histograms"),
    *("callbacks.galleries", "callbacks.progress", "callbacks.step_log", "callbacks.projector"),
    *("callbacks.gradient_conflicts", "callbacks.throughput"),
)
# and no other recipe either
NOT_OF_A_VARIANT = ("seed", "name", "data.cache", "process_group_timeout")
# what equal settings mean, by version: a checkpoint of an older one went on another way
RECIPE = "recipe version"
RECIPE_CHANGES = (
    (2, "warm-ups end at each loss's own value"),
    (2, "several processes deal each task's rows evenly over accumulated micro-batches"),
)
RECIPE_VERSION = max(version for version, _ in RECIPE_CHANGES)
# of every run in a table of hyperparameters
ALWAYS = ("seed", "optimizer.backbone_lr", "optimizer.head_lr", "curriculum.total_steps")
GROUPS = ("model", "weighting")

Value = bool | int | float | str


def flat_settings(cfg: Any) -> dict[str, Any]:
    """Every value of a configuration by its dotted key, resolved; lists stay whole."""
    flat: dict[str, Any] = {}

    def visit(node: Any, path: str) -> None:
        if isinstance(node, dict) and node:
            for key, value in node.items():
                visit(value, f"{path}.{key}" if path else str(key))
        else:
            flat[path] = node

    visit(OmegaConf.to_container(cfg, resolve=True) if OmegaConf.is_config(cfg) else cfg, "")
    return flat


def comparable_settings(cfg: Any, folder: Path) -> dict[str, Any]:
    """What makes runs equal; the run's own folder is left out of paths."""
    flat = {k: v for k, v in flat_settings(cfg).items() if k.split(".")[0] not in OWN}
    flat = {k: v for k, v in flat.items() if v is None or v != matching(CAME_LATER, k)}
    return {k: v.replace(str(folder), "") if isinstance(v, str) else v for k, v in flat.items()}


def run_settings(cfg: DictConfig, processes: int) -> dict[str, Any]:
    """What a run must share with another one to go on from its checkpoint.

    Numbers of rows are those of all processes: the order of rows does not depend on how many there
    are to share them.

    Args:
        cfg: the composed configuration.
        processes: of the run, on all machines together.
    """
    settings: dict[str, Any] = {RECIPE: RECIPE_VERSION}
    for key, value in comparable_settings(cfg, Path(cfg.run_dir)).items():
        if key in PROCESSES or any(f"{key}.".startswith(f"{start}.") for start in HARMLESS):
            continue
        if key == "data.batch_size" or key.startswith("data.rows_per_task") or _of_task(key):
            settings[f"{key} × processes"] = None if value is None else value * processes
        else:
            settings[key] = value
    return settings


def recipe_changes(settings: Mapping[str, Any]) -> str:
    """What saved settings meant otherwise; nothing if they are of today's recipe version.

    Args:
        settings: of `run_settings`, as saved; the first version did not note its number.
    """
    version = settings.get(RECIPE, 1)
    return "; ".join(what for since, what in RECIPE_CHANGES if since > version)


def _of_task(key: str) -> bool:
    return key.startswith("tasks.") and key.endswith(".batch_size")


def hyperparameters(cfg: DictConfig, overrides: Sequence[str] | None = None) -> dict[str, Value]:
    """Name → value, by the names that the command line uses.

    Every job of a sweep has the same names, so that they are columns of one table.

    Args:
        cfg: the composed configuration.
        overrides: the command line's; None takes those of the running Hydra job.
    """
    running = HydraConfig.initialized()
    if overrides is None:
        overrides = HydraConfig.get().overrides.task if running else _saved_overrides(cfg)
    values = {key: _value(cfg, key) for key in ALWAYS}
    for group in GROUPS:
        chosen = HydraConfig.get().runtime.choices.get(group) if running else None
        values[group] = chosen or _class_name(cfg[group])
    for override in OverridesParser.create().parse_overrides(list(overrides)):
        key = override.key_or_group
        if override.is_delete() or not is_compared(key):
            continue
        given = OmegaConf.select(cfg, key)
        plain = isinstance(given, bool | int | float | str)
        values[key] = given if plain else str(override.get_value_element_as_str())
    return values


def is_compared(key: str) -> bool:
    """Whether another value of a key makes another experiment."""
    return not any(f"{key}.".startswith(f"{name}.") for name in NOT_COMPARED)


def of_a_variant(values: Mapping[str, Any]) -> dict[str, Any]:
    """Those of some settings that make a recipe; the others repeat it, or have no part in it."""
    return {k: v for k, v in values.items() if is_compared(k) and k not in NOT_OF_A_VARIANT}


def _saved_overrides(cfg: DictConfig) -> list[str]:
    """Those that Hydra left in the run's folder, for the processes that `launch` started."""
    path = Path(cfg.run_dir) / ".hydra" / "overrides.yaml"
    return [str(item) for item in OmegaConf.load(path)] if path.is_file() else []


def _value(cfg: DictConfig, key: str) -> Value:
    value = OmegaConf.select(cfg, key)
    return value if isinstance(value, bool | int | float | str) else str(value)


def _class_name(node: DictConfig) -> str:
    target = str((node if "_target_" in node else node.encoder)["_target_"])
    return next(part for part in target.split(".") if part[:1].isupper())
