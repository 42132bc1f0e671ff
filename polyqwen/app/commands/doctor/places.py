"""Folders that a run writes to, and the Hugging Face cache."""

import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from polyqwen.app.commands.doctor.finding import Finding, gigabytes

STOP, WARN = 200 * 2**20, 5 * 2**30  # bytes free
SKEW = 60.0  # seconds between our clock and a file system's
WEIGHTS = ("Qwen/Qwen2-VL-2B-Instruct", "BAAI/bge-large-en-v1.5")


def check_places(folders: Sequence[Path]) -> Iterator[Finding]:
    """The folders of runs and data, TMPDIR beside them, and the hub's cache."""
    for folder in folders:
        yield check_folder(folder)
    yield check_temporary(folders[0])
    yield from check_hub()
    if "TOKENIZERS_PARALLELISM" not in os.environ:
        way_out = "with data.num_workers above 0: TOKENIZERS_PARALLELISM=false"
        yield Finding("note", "tokenizers", "TOKENIZERS_PARALLELISM is not set", way_out)


def check_folder(folder: Path) -> Finding:
    """Whether it, or the nearest one above that is there, can be written, and how much."""
    there, what = nearest(folder), f"folder {folder}"
    try:
        with tempfile.NamedTemporaryFile(dir=there, prefix=".doctor-") as file:
            file.write(b"x")
            file.flush()
            skew = abs(os.stat(file.name).st_mtime - time.time())
        free = shutil.disk_usage(there).free
    except OSError as error:
        way_out = "choose others: log_dir=…, data_cache=…"
        return Finding("stop", what, f"cannot be written: {error.strerror or error}", way_out)
    if free < STOP:
        return Finding("stop", what, f"{gigabytes(free)} free", "make room")
    if skew > SKEW:
        found = f"its file system's clock differs by {skew:.0f} s"
        return Finding("warn", what, found, "resume=PATH; auto goes by time")
    if free < WARN:
        way_out = "a checkpoint of the 2B model takes more than 20 GB, of the tiny one 20 MB"
        return Finding("warn", what, f"{gigabytes(free)} free", way_out)
    return Finding("ok", what, f"writable, {gigabytes(free)} free")


def check_temporary(folder: Path) -> Finding:
    """Whether the folder for temporary files is there, and where."""
    try:
        temporary = Path(tempfile.gettempdir())
    except OSError:
        return Finding("stop", "TMPDIR", "no folder for temporary files", "TMPDIR=a folder")
    one = os.stat(temporary).st_dev == os.stat(nearest(folder)).st_dev
    free = shutil.disk_usage(temporary).free
    if free < STOP:
        return Finding("stop", "TMPDIR", f"{temporary}: {gigabytes(free)} free", "make room")
    where = "on the runs' file system" if one else "on another file system (checkpoints avoid it)"
    return Finding("ok", "TMPDIR", f"{temporary}, {where}, {gigabytes(free)} free")


def check_hub() -> Iterator[Finding]:
    """Where weights of the hub are kept, which are there, and whether others can come."""
    home = Path(os.environ.get("HF_HOME", "~/.cache/huggingface")).expanduser()
    cache = Path(os.environ.get("HF_HUB_CACHE", home / "hub"))
    there = [name for name in WEIGHTS if (cache / f"models--{name.replace('/', '--')}").is_dir()]
    offline = any(
        os.environ.get(name, "").lower() in ("1", "true", "yes", "on")
        for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
    )
    found = f"{cache}: {', '.join(there) or 'no weights'}; " + ("offline" if offline else "online")
    lacking = offline and len(there) < len(WEIGHTS)
    way_out = "experiments with published weights need them there; model=tiny needs none"
    yield Finding("note", "hub", found, way_out if lacking else "")
    if os.environ.get("HF_TOKEN"):
        yield Finding("note", "hub", "HF_TOKEN is set, and handed on to all processes")


def nearest(folder: Path) -> Path:
    """The folder, or the first above it that exists."""
    folder = folder.expanduser().absolute()
    return next(path for path in (folder, *folder.parents) if path.exists())
