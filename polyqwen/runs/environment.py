"""What the machine and the checkout say of themselves, for reports and measurements."""

import os
import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
PACKAGES = ("torch", "lightning", "transformers", "hydra-core", "datasets", "numpy")


def processor() -> str:
    """The CPU's name."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.is_file() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or "CPU"


def version_of(package: str) -> str | None:
    """The version of an installed package."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def git(*arguments: str) -> str | None:
    """What git answers in the project's folder; None outside of a checkout."""
    if not (ROOT / ".git").exists():  # installed, perhaps inside of another project's checkout
        return None
    try:
        answer = subprocess.run(
            ["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True, timeout=10
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip()


def environment() -> dict[str, Any]:
    """What a run's page says of the machine and the code: name -> value, as they are shown."""
    import torch

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
