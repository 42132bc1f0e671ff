"""What a measurement must say of the machine it was made on."""

import os
import platform
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from polyqwen.runs.environment import git, processor, version_of

ROOT = Path(__file__).parents[2]
PACKAGES = ("torch", "transformers", "lightning", "sentence-transformers", "gradcache")


def environment(device: torch.device) -> dict[str, Any]:
    """Date, device, versions, commit, threads and load average."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "device": device_name(device),
        "machine": platform.machine(),
        "python": platform.python_version(),
        "versions": {name: found for name in PACKAGES if (found := version_of(name))},
        "cuda": torch.version.cuda if device.type == "cuda" else None,
        "commit": git("rev-parse", "--short", "HEAD"),
        "changed": bool(git("status", "--porcelain", "--untracked-files=no")),
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        "load": [round(value, 2) for value in os.getloadavg()],
    }


def device_name(device: torch.device) -> str:
    """The GPU's name, or the CPU's."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return processor()
