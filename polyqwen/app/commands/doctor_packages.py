"""Versions of what is installed, against the pins and what is known of other versions."""

import importlib.metadata
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from polyqwen.app.commands.doctor_machine import Diagnosis

PINS = Path(__file__).parents[3] / "requirements.txt"
NEEDED = (
    *("torch", "lightning", "transformers", "tokenizers", "torchmetrics", "hydra-core"),
    *("omegaconf", "datasets", "pillow", "tensorboard", "numpy", "scipy", "matplotlib", "rich"),
)
PYTHON = (3, 11)
FLOORS = {  # below: known holes
    "lightning": ("2.6.6", "checkpoints could name code to run"),
    "torch": ("2.10", "weights_only=True could be got around"),
    "transformers": ("5.5", "configurations of the hub could bring code along"),
    "pillow": ("12.2", "small pictures could take all memory"),
    "datasets": ("4.0", "data sets could bring code along"),
    "tensorboard": ("2.21", "it does not start with new setuptools"),
}
MALICIOUS = {"lightning": ("2.6.2", "2.6.3")}
INSTALL = f"pip install {'-r requirements.txt' if PINS.is_file() else '--upgrade polyqwen'}"


def check_packages(pins_file: Path = PINS) -> Iterator[Diagnosis]:
    """Python and every package that a run needs; others only if they are not as pinned."""
    version = ".".join(map(str, sys.version_info[:3]))
    new = sys.version_info >= PYTHON
    yield Diagnosis("ok" if new else "stop", "python", version, "" if new else "use 3.11 or newer")
    pins = pins_of(pins_file)
    for name in NEEDED:
        yield check_package(name, installed(name), pins.get(name))
    for name in sorted(set(pins) - set(NEEDED)):
        there = installed(name)
        if there is not None and there.partition("+")[0] != pins[name]:
            yield check_package(name, there, pins[name])
    yield check_torchvision(installed("torchvision"), installed("torch"))


def check_package(name: str, there: str | None, pin: str | None) -> Diagnosis:
    """One package: missing, malicious, too old, other than pinned, or well."""
    if there is None:
        return Diagnosis("stop", name, "is not installed", INSTALL)
    plain = there.partition("+")[0]
    if plain in MALICIOUS.get(name, ()):
        way_out = f"take the machine off the network, change all credentials, then {INSTALL}"
        return Diagnosis("stop", name, f"{there}: this release steals credentials", way_out)
    floor, why = FLOORS.get(name, ("0", ""))
    if numbers(plain) < numbers(floor):
        return Diagnosis("warn", name, f"{there}: below {floor}, {why}", INSTALL)
    if pin is not None and plain != pin:
        return Diagnosis("warn", name, f"{there}, tested with {pin}", INSTALL)
    return Diagnosis("ok", name, there)


def check_torchvision(there: str | None, torch: str | None) -> Diagnosis:
    """It is not needed; one that does not belong to torch breaks the import of transformers."""
    if there is None:
        return Diagnosis("ok", "torchvision", "is not installed and not needed: Pillow is")
    ours = numbers(torch or "0")
    if ours and numbers(there)[:2] != (0, (*ours, 0)[1] + 15):
        way_out = "pip uninstall torchvision"
        return Diagnosis(
            "warn", "torchvision", f"{there} does not belong to torch {torch}", way_out
        )
    return Diagnosis("note", "torchvision", f"{there}; not used")


def installed(name: str) -> str | None:
    """The installed version, without importing anything."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def pins_of(path: Path) -> dict[str, str]:
    """name → version of ``name==version`` lines; nothing if there is no such file."""
    if not path.is_file():
        return {}
    found = re.findall(r"^([A-Za-z0-9_.-]+)==([^\s#]+)", path.read_text(encoding="utf-8"), re.M)
    return dict(found)


def numbers(version: str) -> tuple[int, ...]:
    """The leading numbers of a version, to compare by."""
    return tuple(int(part) for part in re.findall(r"\d+", version.partition("+")[0])[:3])
