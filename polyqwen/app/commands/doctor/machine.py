"""Devices, ways for processes to talk, memory, limits, the clock."""

import os
import resource
import shutil
import socket
import time
from collections.abc import Iterator
from pathlib import Path

from polyqwen.app.commands.doctor.finding import Finding, gigabytes

SHM = Path("/dev/shm")
LEAST_SHM, LEAST_MEMORY = 2**30, 2 * 2**30  # bytes
LEAST_FILES = 1024
WRITTEN = 1_760_000_000  # seconds since 1970; a clock before this is wrong


def check_machine() -> Iterator[Finding]:
    """Everything but packages and folders; imports torch, if it is there."""
    yield from check_devices()
    yield check_threads(os.environ.get("OMP_NUM_THREADS"), _cores())
    yield check_memory()
    yield check_shared_memory(shutil.disk_usage(SHM).total if SHM.is_dir() else None)
    yield check_open_files(resource.getrlimit(resource.RLIMIT_NOFILE)[0])
    yield check_clock(time.time())
    yield check_loopback()
    if "LOCAL_RANK" in os.environ or int(os.environ.get("SLURM_NTASKS", "1")) > 1:
        found = "LOCAL_RANK or SLURM_NTASKS is set: train.py waits for other processes"
        yield Finding("warn", "launcher", found, "unset it, or start with torchrun or srun")


def _cores() -> int:
    allowed = getattr(os, "sched_getaffinity", None)  # Linux alone
    return len(allowed(0)) if allowed else os.cpu_count() or 1


def check_devices() -> Iterator[Finding]:
    """GPUs, and the libraries that join processes."""
    try:
        import torch
        import torch.distributed as dist
    except (ImportError, OSError) as error:
        text = str(error).splitlines()[0]
        yield Finding("stop", "torch", f"cannot be imported: {text}", "reinstall torch")
        return
    count = torch.cuda.device_count()
    for i in range(count):
        known = torch.cuda.get_device_properties(i)
        half = "bf16" if torch.cuda.is_bf16_supported() else "no bf16: trainer.precision=32-true"
        found = f"{known.name}, {gigabytes(known.total_memory)}, {half}"
        yield Finding("ok", f"GPU {i}", found)
    if not count:
        driver = Path("/proc/driver/nvidia/version").exists()
        way_out = "install a CUDA build of torch" if driver else ""
        found = (
            "none is seen by torch, but there is a driver" if driver else "none; runs on the CPU"
        )
        yield Finding("warn" if driver else "note", "GPU", found, way_out)
    gloo = dist.is_available() and dist.is_gloo_available()
    nccl = dist.is_available() and dist.is_nccl_available()
    names = ", ".join(n for n, there in (("gloo", gloo), ("nccl", nccl)) if there) or "none"
    lacking = "nccl" if count > 1 and not nccl else "gloo" if not gloo else ""
    way_out = f"without {lacking} leave trainer.devices=1" if lacking else ""
    yield Finding("warn" if lacking else "ok", "backends", names, way_out)


def check_threads(asked: str | None, cores: int) -> Finding:
    """Threads that torch would take, against the cores that this process may use."""
    if asked is not None and asked.isdigit() and int(asked) > cores:
        found = f"OMP_NUM_THREADS={asked} on {cores} cores"
        return Finding("warn", "threads", found, f"OMP_NUM_THREADS={cores}, or leave it out")
    return Finding("ok", "threads", f"{asked or 'all'} of {cores} cores")


def check_memory() -> Finding:
    """Memory that is free, as Linux tells it."""
    path = Path("/proc/meminfo")
    lines = path.read_text().splitlines() if path.is_file() else []
    free = next((int(x.split()[1]) * 1024 for x in lines if x.startswith("MemAvailable")), None)
    if free is None:
        return Finding("note", "memory", "unknown")
    if free < LEAST_MEMORY:
        way_out = "end other programs; the tiny model needs 2 GB"
        return Finding("warn", "memory", f"{gigabytes(free)} free", way_out)
    return Finding("ok", "memory", f"{gigabytes(free)} free")


def check_shared_memory(size: int | None) -> Finding:
    """Loader workers hand batches over through it; too little ends them with a bus error."""
    if size is None:
        return Finding("note", "shared memory", f"there is no {SHM}")
    if size < LEAST_SHM:
        way_out = "data.num_workers=0, or docker run --shm-size=8g"
        return Finding("warn", "shared memory", f"{gigabytes(size)} in {SHM}", way_out)
    return Finding("ok", "shared memory", f"{gigabytes(size)} in {SHM}")


def check_open_files(limit: int) -> Finding:
    """Loader workers and memory-mapped tables hold files open."""
    if limit != resource.RLIM_INFINITY and limit < LEAST_FILES:
        return Finding("warn", "open files", f"at most {limit}", "ulimit -n 4096")
    return Finding("ok", "open files", f"at most {limit}")


def check_clock(now: float) -> Finding:
    """Runs are named by it, and the newest checkpoint is known by it."""
    shown = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(now))
    if now < WRITTEN:
        return Finding("warn", "clock", f"{shown} is long past", "set the clock")
    return Finding("ok", "clock", shown)


def check_loopback() -> Finding:
    """Processes of one machine meet at 127.0.0.1."""
    try:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
    except OSError as error:
        way_out = "allow 127.0.0.1, or leave trainer.devices=1"
        return Finding("warn", "loopback", f"cannot be used: {error}", way_out)
    return Finding("ok", "loopback", "127.0.0.1 can be used")
