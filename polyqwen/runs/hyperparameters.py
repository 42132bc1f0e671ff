"""What a run is worth comparing by: a fixed handful, and what the command line changed."""

from collections.abc import Sequence
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

Value = bool | int | float | str

ALWAYS = ("seed", "optimizer.backbone_lr", "optimizer.head_lr", "curriculum.total_steps")
GROUPS = ("model", "weighting")
# Where things go, and how often one looks: another value is not another experiment.
NOT_COMPARED = (
    *(
        "hydra",
        "run_dir",
        "data_cache",
        "log_dir",
        "metadata",
        "logger",
        "validate_every",
        "baseline",
    ),
    *("ablations", "callbacks.dashboard", "callbacks.histograms", "callbacks.galleries"),
    *("callbacks.progress", "callbacks.step_log", "callbacks.projector"),
    *("callbacks.gradient_conflicts", "callbacks.throughput"),
)


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
