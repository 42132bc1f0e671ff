"""Kills a training again and again, and asks whether it ends with the weights of a quiet one.

    python -m benchmarks.soak                              # a few minutes
    python -m benchmarks.soak --minutes 60 --steps 1500    # what docs/reliability.md reports

A quiet run comes first; its memory is watched. Then runs of the same configuration are started
with ``resume=auto`` and ended at random moments, from the start of the process on, by SIGKILL,
SIGTERM and SIGINT, some the moment a checkpoint is being written, with TMPDIR on another file
system, until the time is up. Each of them that reaches the last step is compared, bit for bit:
weights, buffers and the optimizer's state.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from polyqwen.atomic_files import TEMPORARY
from polyqwen.checkpoints.sidecar import DamagedCheckpoint, verified
from polyqwen.data.generated import generate

ROOT = Path(__file__).parents[1]
MOMENTS = ("any", "training", "saving", "saving")
SIGNALS = (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
LONGEST = 20.0  # seconds of training before a kill


def main() -> None:
    """Prints what happened, one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=3.0, help="of kills, after the quiet run")
    parser.add_argument("--steps", type=int, default=60, help="optimizer steps of a run")
    parser.add_argument("--every", type=int, default=5, help="steps between checkpoints")
    parser.add_argument("--seed", type=int, default=0, help="of the kills")
    options = parser.parse_args()
    # a shell's background job ignores SIGINT, and so would the runs
    signal.signal(signal.SIGINT, signal.default_int_handler)
    draw = random.Random(options.seed)
    with tempfile.TemporaryDirectory(prefix="soak_") as folder:
        work = Path(folder)
        data = generate(work / "data", seed=1, train_rows=64, eval_rows=32)
        command = train_command(data, work, options.steps, options.every)
        memory = quiet_run([*command, f"run_dir={work / 'quiet' / 'run'}"], work)
        expected = final_state(work / "quiet" / "run")
        totals = {"kills": 0, "exits": {}, "unreadable": 0, "rounds": 0, "unequal": 0}
        until = time.monotonic() + 60 * options.minutes
        while time.monotonic() < until:
            run = work / f"round_{totals['rounds']}" / "run"
            disturbed_run([*command, f"run_dir={run}", "resume=auto"], run, draw, totals, until)
            totals["rounds"] += 1
            if not same(final_state(run), expected):
                totals["unequal"] += 1
        report = {**vars(options), **totals, "memory": memory, "left": left_over(work)}
    print(json.dumps(report, indent=1))
    sys.exit(1 if totals["unreadable"] or totals["unequal"] or report["left"] else 0)


def train_command(data: Path, work: Path, steps: int, every: int) -> list[str]:
    """A tiny training through both phases, with dropout."""
    return [
        sys.executable,
        "train.py",
        "data=folder",
        f"data.root={data}",
        f"data_cache={work / 'cache'}",
        f"curriculum.total_steps={steps}",
        f"curriculum.switch_step={steps // 2}",
        f"validate_every={every * 4}",
        f"callbacks.last.every_n_train_steps={every}",
        "data.rows_per_task=4",
        "data.batch_size=null",
        "weighting.eval_steps=3",
        "+model.encoder.config.text_config.attention_dropout=0.2",
        "baseline=false",
        "ablations=[]",
        "callbacks.progress=null",
    ]


def start(command: list[str], run: Path) -> subprocess.Popen[bytes]:
    """A process of its own group, whose temporary files lie on another file system."""
    run.mkdir(parents=True, exist_ok=True)
    with (run / "output.log").open("ab") as log:
        return subprocess.Popen(
            command,
            cwd=ROOT,
            stdout=log,
            stderr=log,
            env={**os.environ, "OMP_NUM_THREADS": "1", "TMPDIR": "/dev/shm"},
            process_group=0,
        )


def quiet_run(command: list[str], work: Path) -> dict[str, float]:
    """Lets a run come to its end; returns how its memory grew while it trained.

    The slope is that of a line through the second half of the samples.
    """
    run = work / "quiet" / "run"
    process = start(command, run)
    samples: list[tuple[float, float]] = []
    while process.poll() is None:
        if (step := steps_done(run)) and not (run / "results.json").exists():
            samples.append((step, resident_mb(process.pid)))
        time.sleep(0.5)
    if process.returncode:
        sys.exit((run / "output.log").read_text()[-3000:])
    steps, mb = np.array(samples[len(samples) // 2 :]).T
    slope = float(np.polyfit(steps, mb, 1)[0]) * 1000
    return {"first_mb": samples[0][1], "last_mb": samples[-1][1], "mb_per_1000_steps": slope}


def disturbed_run(
    command: list[str], run: Path, draw: random.Random, totals: dict[str, Any], until: float
) -> None:
    """Starts a run over and over, until it has come to its end."""
    while True:
        workers = draw.choice((0, 2))
        process = start([*command, f"data.num_workers={workers}"], run)
        if time.monotonic() < until and wait_for(draw.choice(MOMENTS), process, run, draw):
            number = draw.choice(SIGNALS)
            process.send_signal(number)
            totals["kills"] += 1
        status = process.wait(timeout=3600)
        totals["exits"][str(status)] = totals["exits"].get(str(status), 0) + 1
        totals["unreadable"] += unreadable(run)
        if status == 0:
            return
        if status not in (-9, -15, -2, 130, 143):
            sys.exit((run / "output.log").read_text()[-3000:])


def wait_for(moment: str, process: subprocess.Popen[bytes], run: Path, draw: random.Random) -> bool:
    """Waits for a moment to end the process at; False if it ended before."""
    begun, before = time.monotonic(), steps_done(run)
    delay = draw.uniform(0.0, LONGEST)
    while process.poll() is None:
        if moment != "any" and steps_done(run) == before:  # it has not saved yet
            begun = time.monotonic()
        elif time.monotonic() - begun > delay and (moment != "saving" or is_saving(run)):
            time.sleep(draw.uniform(0.0, 0.05) if moment == "saving" else 0.0)
            return process.poll() is None
        time.sleep(0.002 if moment == "saving" else 0.05)
    return False


def is_saving(run: Path) -> bool:
    """Whether a file is being written."""
    return any((run / "checkpoints").glob(f".*{TEMPORARY}"))


def steps_done(run: Path) -> int:
    """Optimizer steps of the newest checkpoint, 0 without one."""
    last = run / "checkpoints" / "last.ckpt"
    return int(last.readlink().stem.split("-")[1]) if last.is_symlink() else 0


def unreadable(run: Path) -> int:
    """Checkpoints that are there with a sidecar and are not what it says, or cannot be loaded."""
    bad = 0
    for sidecar in (run / "checkpoints").glob("*.ckpt.json"):
        path = sidecar.with_suffix("")
        try:
            verified(path)
            torch.load(path, map_location="cpu", weights_only=True)
        except (DamagedCheckpoint, RuntimeError, OSError) as error:
            print(f"unreadable: {path}: {error}", file=sys.stderr)
            bad += 1
    return bad


def final_state(run: Path) -> dict[str, Any]:
    """Weights, buffers and optimizer of the run's end."""
    checkpoint = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    return {key: checkpoint[key] for key in ("state_dict", "optimizer_states", "global_step")}


def same(first: Any, second: Any) -> bool:
    """Bit for bit, in nested values; NaN equals NaN."""
    if isinstance(first, torch.Tensor):
        return torch.equal(first.nan_to_num(-1.25), second.nan_to_num(-1.25))
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(same(first[k], second[k]) for k in first)
    if isinstance(first, list | tuple):
        return len(first) == len(second) and all(map(same, first, second))
    return bool(first == second)


def resident_mb(pid: int) -> float:
    """Memory of a process."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def left_over(work: Path) -> int:
    """Processes that still work for a run, a while after its end."""
    time.sleep(10)
    found = 0
    for process in Path("/proc").glob("[0-9]*"):
        try:
            found += (
                str(work) in (process / "cmdline").read_text() and int(process.name) != os.getpid()
            )
        except OSError:  # it has just ended
            continue
    return found


if __name__ == "__main__":
    main()
