"""What a run's page says of the machine and the code that trained it."""

import os
import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).parents[3]
PACKAGES = ("torch", "lightning", "transformers", "hydra-core", "datasets", "numpy")


def environment() -> dict[str, Any]:
    """Name -> value, in the order in which they are shown."""
    cuda = torch.cuda.is_available()
    values: dict[str, Any] = {
        "written": datetime.now(UTC).isoformat(timespec="seconds"),
        "device": torch.cuda.get_device_name(0) if cuda else _processor(),
        "GPUs": torch.cuda.device_count() if cuda else 0,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "processes": int(os.environ.get("WORLD_SIZE", "1")),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        **{package: _version(package) for package in PACKAGES},
        "commit": _git("rev-parse", "--short", "HEAD"),
    }
    if values["commit"] and _git("status", "--porcelain", "--untracked-files=no"):
        values["commit"] += ", changed since"
    if cuda:
        values["peak GPU memory, GiB"] = round(torch.cuda.max_memory_allocated() / 2**30, 2)
    return {name: value for name, value in values.items() if value is not None}


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.is_file() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or "CPU"


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _git(*arguments: str) -> str | None:
    try:
        answer = subprocess.run(
            ["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True, timeout=10
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip()
