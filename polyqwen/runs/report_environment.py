"""What a run's page says of the machine and the code that trained it."""

import os
import platform
from datetime import UTC, datetime
from typing import Any

import torch

from polyqwen.runs.environment import git, processor, version_of

PACKAGES = ("torch", "lightning", "transformers", "hydra-core", "datasets", "numpy")


def environment() -> dict[str, Any]:
    """Name -> value, in the order in which they are shown."""
    cuda = torch.cuda.is_available()
    values: dict[str, Any] = {
        "written": datetime.now(UTC).isoformat(timespec="seconds"),
        "device": torch.cuda.get_device_name(0) if cuda else processor(),
        "GPUs": torch.cuda.device_count() if cuda else 0,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "processes": int(os.environ.get("WORLD_SIZE", "1")),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        **{package: version_of(package) for package in PACKAGES},
        "commit": git("rev-parse", "--short", "HEAD"),
    }
    if values["commit"] and git("status", "--porcelain", "--untracked-files=no"):
        values["commit"] += ", changed since"
    if cuda:
        values["peak GPU memory, GiB"] = round(torch.cuda.max_memory_allocated() / 2**30, 2)
    return {name: value for name, value in values.items() if value is not None}
