"""Times several ways of doing one thing on a machine that others use too.

Arms take turns, round by round, so that all of them meet the same moods of the machine. A speedup
is the median over rounds of paired ratios; the ratio of the shortest times stands beside it, and
where the two differ by more than `TOLERANCE` there is no number, only "too noisy".
"""

import gc
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch

TOLERANCE = 0.05
Step = Callable[[], object]


class Ratio(NamedTuple):
    """How many times faster one arm is than another."""

    median: float  # of the paired ratios
    minima: float  # ratio of the shortest times
    low: float  # quartiles of the paired ratios
    high: float

    @property
    def noisy(self) -> bool:
        """Whether the two statistics disagree."""
        return abs(self.median / self.minima - 1.0) > TOLERANCE

    def __str__(self) -> str:
        return "too noisy" if self.noisy else f"{self.median:.2f}x"


def clock(device: torch.device) -> float:
    """Seconds: of this process on a CPU, of the wall behind a synchronised GPU."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        return time.perf_counter()
    return time.process_time()


def interleave(
    arms: Mapping[str, Step], rounds: int, warm: int, device: torch.device
) -> dict[str, list[float]]:
    """Seconds of every arm in each round, without the first ``warm`` rounds.

    The garbage collector runs between the turns and never within one.
    """
    if rounds < 1 or warm < 0:
        raise ValueError(f"need rounds >= 1 and warm >= 0, got {rounds} and {warm}")
    seconds: dict[str, list[float]] = {name: [] for name in arms}
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        for turn in range(warm + rounds):
            for name, step in arms.items():
                gc.collect()
                start = clock(device)
                step()
                taken = clock(device) - start
                if turn >= warm:
                    seconds[name].append(taken)
    finally:
        if was_enabled:
            gc.enable()
    return seconds


def speedup(fast: Sequence[float], slow: Sequence[float]) -> Ratio:
    """How many times faster the first arm is, from times of the same rounds."""
    pairs = [b / a for a, b in zip(fast, slow, strict=True)]
    low, _, high = statistics.quantiles(pairs, n=4) if len(pairs) > 1 else pairs * 3
    return Ratio(statistics.median(pairs), min(slow) / min(fast), low, high)


def peak_memory(step: Step, device: torch.device) -> int | None:
    """Bytes that a step holds at its highest point on a GPU; None on a CPU."""
    if device.type != "cuda":
        return None
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    step()
    torch.cuda.synchronize(device)
    return torch.cuda.max_memory_allocated(device)
