"""What makes two runs the same."""

from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from polyqwen.runs.settings import flat_settings

# what may differ between a run and the one that goes on with it
OWN = ("run_dir", "ckpt_path", "resume", "resume_allow", "metadata")
# and what has no part in the result
HARMLESS = (
    "logger",
    "log_dir",
    "data_cache",
    "data.cache",
    "data.num_workers",
    "data.picture_cache_mb",
    "process_group_timeout",
    "callbacks.progress",
    "callbacks.last",
    "trainer.enable_progress_bar",
    "trainer.enable_model_summary",
)
PROCESSES = ("trainer.devices", "trainer.num_nodes")


def comparable_settings(cfg: Any, folder: Path) -> dict[str, Any]:
    """What makes runs equal; the run's own folder is left out of paths."""
    flat = {k: v for k, v in flat_settings(cfg).items() if k.split(".")[0] not in OWN}
    return {k: v.replace(str(folder), "") if isinstance(v, str) else v for k, v in flat.items()}


def run_settings(cfg: DictConfig, processes: int) -> dict[str, Any]:
    """What a run must share with another one to go on from its checkpoint.

    Numbers of rows are those of all processes: the order of rows does not depend on how many there
    are to share them.

    Args:
        cfg: the composed configuration.
        processes: of the run, on all machines together.
    """
    settings: dict[str, Any] = {}
    for key, value in comparable_settings(cfg, Path(cfg.run_dir)).items():
        if key in PROCESSES or any(f"{key}.".startswith(f"{start}.") for start in HARMLESS):
            continue
        if key == "data.batch_size" or key.startswith("data.rows_per_task") or _of_task(key):
            settings[f"{key} × processes"] = None if value is None else value * processes
        else:
            settings[key] = value
    return settings


def _of_task(key: str) -> bool:
    return key.startswith("tasks.") and key.endswith(".batch_size")
