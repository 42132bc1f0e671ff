"""Checks of the machine: devices, memory, limits, the clock, folders, the Hugging Face cache."""

import os
import resource
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

SHM = Path("/dev/shm")
LEAST_SHM, LEAST_MEMORY = 2**30, 2 * 2**30  # bytes
LEAST_FILES = 1024
WRITTEN = 1_760_000_000  # seconds since 1970; a clock before this is wrong
STOP, WARN = 200 * 2**20, 5 * 2**30  # bytes free
SKEW = 60.0  # seconds between our clock and a file system's
WEIGHTS = ("Qwen/Qwen2-VL-2B-Instruct", "BAAI/bge-large-en-v1.5")

Level = Literal["ok", "note", "warn", "stop"]


class Diagnosis(NamedTuple):
    """What was looked at, what is there, and what to do if it is not well.

    Attributes:
        level: ``stop`` if a run would not start or end well, ``warn`` if it might not, ``note`` for
            what is worth knowing.
        what: that was looked at.
        found: there.
        way_out: empty where nothing is to be done.
    """

    level: Level
    what: str
    found: str
    way_out: str = ""


def gigabytes(number: float) -> str:
    """Bytes as a person reads them."""
    return f"{number / 2**30:.1f} GB"


def check_machine() -> Iterator[Diagnosis]:
    """Devices, threads, memory, limits, the clock; imports torch, if it is there."""
    yield from check_devices()
    yield check_threads(os.environ.get("OMP_NUM_THREADS"), _cores())
    yield check_memory()
    yield check_shared_memory(shutil.disk_usage(SHM).total if SHM.is_dir() else None)
    yield check_open_files(resource.getrlimit(resource.RLIMIT_NOFILE)[0])
    yield check_clock(time.time())
    yield check_loopback()
    if "LOCAL_RANK" in os.environ or int(os.environ.get("SLURM_NTASKS", "1")) > 1:
        found = "LOCAL_RANK or SLURM_NTASKS is set: train.py waits for other processes"
        yield Diagnosis("warn", "launcher", found, "unset it, or start with torchrun or srun")


def _cores() -> int:
    allowed = getattr(os, "sched_getaffinity", None)  # Linux alone
    return len(allowed(0)) if allowed else os.cpu_count() or 1


def check_devices() -> Iterator[Diagnosis]:
    """GPUs, and the libraries that join processes."""
    try:
        import torch
        import torch.distributed as dist
    except (ImportError, OSError) as error:
        text = str(error).splitlines()[0]
        yield Diagnosis("stop", "torch", f"cannot be imported: {text}", "reinstall torch")
        return
    count = torch.cuda.device_count()
    for i in range(count):
        known = torch.cuda.get_device_properties(i)
        half = "bf16" if torch.cuda.is_bf16_supported() else "no bf16: trainer.precision=32-true"
        found = f"{known.name}, {gigabytes(known.total_memory)}, {half}"
        yield Diagnosis("ok", f"GPU {i}", found)
    if not count:
        driver = Path("/proc/driver/nvidia/version").exists()
        way_out = "install a CUDA build of torch" if driver else ""
        found = (
            "none is seen by torch, but there is a driver" if driver else "none; runs on the CPU"
        )
        yield Diagnosis("warn" if driver else "note", "GPU", found, way_out)
    gloo = dist.is_available() and dist.is_gloo_available()
    nccl = dist.is_available() and dist.is_nccl_available()
    names = ", ".join(n for n, there in (("gloo", gloo), ("nccl", nccl)) if there) or "none"
    lacking = "nccl" if count > 1 and not nccl else "gloo" if not gloo else ""
    way_out = f"without {lacking} leave trainer.devices=1" if lacking else ""
    yield Diagnosis("warn" if lacking else "ok", "backends", names, way_out)


def check_threads(asked: str | None, cores: int) -> Diagnosis:
    """Threads that torch would take, against the cores that this process may use."""
    if asked is not None and asked.isdigit() and int(asked) > cores:
        found = f"OMP_NUM_THREADS={asked} on {cores} cores"
        return Diagnosis("warn", "threads", found, f"OMP_NUM_THREADS={cores}, or leave it out")
    return Diagnosis("ok", "threads", f"{asked or 'all'} of {cores} cores")


def check_memory() -> Diagnosis:
    """Memory that is free, as Linux tells it."""
    path = Path("/proc/meminfo")
    lines = path.read_text().splitlines() if path.is_file() else []
    free = next((int(x.split()[1]) * 1024 for x in lines if x.startswith("MemAvailable")), None)
    if free is None:
        return Diagnosis("note", "memory", "unknown")
    if free < LEAST_MEMORY:
        way_out = "end other programs; the tiny model needs 2 GB"
        return Diagnosis("warn", "memory", f"{gigabytes(free)} free", way_out)
    return Diagnosis("ok", "memory", f"{gigabytes(free)} free")


def check_shared_memory(size: int | None) -> Diagnosis:
    """Loader workers hand batches over through it; too little ends them with a bus error."""
    if size is None:
        return Diagnosis("note", "shared memory", f"there is no {SHM}")
    if size < LEAST_SHM:
        way_out = "data.num_workers=0, or docker run --shm-size=8g"
        return Diagnosis("warn", "shared memory", f"{gigabytes(size)} in {SHM}", way_out)
    return Diagnosis("ok", "shared memory", f"{gigabytes(size)} in {SHM}")


def check_open_files(limit: int) -> Diagnosis:
    """Loader workers and memory-mapped tables hold files open."""
    if limit != resource.RLIM_INFINITY and limit < LEAST_FILES:
        return Diagnosis("warn", "open files", f"at most {limit}", "ulimit -n 4096")
    return Diagnosis("ok", "open files", f"at most {limit}")


def check_clock(now: float) -> Diagnosis:
    """Runs are named by it, and the newest checkpoint is known by it."""
    shown = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(now))
    if now < WRITTEN:
        return Diagnosis("warn", "clock", f"{shown} is long past", "set the clock")
    return Diagnosis("ok", "clock", shown)


def check_loopback() -> Diagnosis:
    """Processes of one machine meet at 127.0.0.1."""
    try:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
    except OSError as error:
        way_out = "allow 127.0.0.1, or leave trainer.devices=1"
        return Diagnosis("warn", "loopback", f"cannot be used: {error}", way_out)
    return Diagnosis("ok", "loopback", "127.0.0.1 can be used")


def check_places(folders: Sequence[Path]) -> Iterator[Diagnosis]:
    """The folders of runs and data, TMPDIR beside them, and the hub's cache."""
    for folder in folders:
        yield check_folder(folder)
    yield check_temporary(folders[0])
    yield from check_hub()
    if "TOKENIZERS_PARALLELISM" not in os.environ:
        way_out = "with data.num_workers above 0: TOKENIZERS_PARALLELISM=false"
        yield Diagnosis("note", "tokenizers", "TOKENIZERS_PARALLELISM is not set", way_out)


def check_folder(folder: Path) -> Diagnosis:
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
        return Diagnosis("stop", what, f"cannot be written: {error.strerror or error}", way_out)
    if free < STOP:
        return Diagnosis("stop", what, f"{gigabytes(free)} free", "make room")
    if skew > SKEW:
        found = f"its file system's clock differs by {skew:.0f} s"
        return Diagnosis("warn", what, found, "resume=PATH; auto goes by time")
    if free < WARN:
        way_out = "a checkpoint of the 2B model takes more than 20 GB, of the tiny one 20 MB"
        return Diagnosis("warn", what, f"{gigabytes(free)} free", way_out)
    return Diagnosis("ok", what, f"writable, {gigabytes(free)} free")


def check_temporary(folder: Path) -> Diagnosis:
    """Whether the folder for temporary files is there, and where."""
    try:
        temporary = Path(tempfile.gettempdir())
    except OSError:
        return Diagnosis("stop", "TMPDIR", "no folder for temporary files", "TMPDIR=a folder")
    one = os.stat(temporary).st_dev == os.stat(nearest(folder)).st_dev
    free = shutil.disk_usage(temporary).free
    if free < STOP:
        return Diagnosis("stop", "TMPDIR", f"{temporary}: {gigabytes(free)} free", "make room")
    where = "on the runs' file system" if one else "on another file system (checkpoints avoid it)"
    return Diagnosis("ok", "TMPDIR", f"{temporary}, {where}, {gigabytes(free)} free")


def check_hub() -> Iterator[Diagnosis]:
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
    yield Diagnosis("note", "hub", found, way_out if lacking else "")
    if os.environ.get("HF_TOKEN"):
        yield Diagnosis("note", "hub", "HF_TOKEN is set, and handed on to all processes")


def nearest(folder: Path) -> Path:
    """The folder, or the first above it that exists."""
    folder = folder.expanduser().absolute()
    return next(path for path in (folder, *folder.parents) if path.exists())
