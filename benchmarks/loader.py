"""What a picture costs a loader worker: our decoding, resizing and cutting beside Hugging Face's.

    python -m benchmarks.loader [--rounds 16] [--pictures 12] [--to benchmarks/results]

Both read the same generated JPEG files (a smooth scene with noise) with Pillow and make patches of
at most 256 visual tokens: ours in uint8 and one frame, resized by torch (the default) or by Pillow,
`Qwen2VLImageProcessorPil` in normalised fp32 and two frames. CPU time of one thread, in rounds that
interleave the arms; the first round is not counted. The answer is the median
over rounds of the paired ratio, beside the ratio of the fastest rounds; a second instance of ours
(A/A) shows how far to trust it.
"""

import argparse
import json
import statistics
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from PIL import __version__ as pillow
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from benchmarks.suite.environment import ROOT, environment
from benchmarks.suite.runner import interleave, speedup
from polyqwen.data.images.images import Pictures

CPU, WARM = torch.device("cpu"), 1
SIZES = ((640, 480), (1024, 768))
TOKENS = 256  # visual tokens of a picture at most
OURS, AGAIN = "polyqwen", "polyqwen (again)"
PILLOW, THEIRS = "polyqwen, resize: pillow", "hugging_face"


def write_pictures(folder: Path, size: tuple[int, int], number: int) -> list[str]:
    """Files of one size; noise over a smooth picture compresses about as a photograph does."""
    numbers = np.random.default_rng(0)
    names = []
    for i in range(number):
        small = Image.fromarray(numbers.integers(0, 256, (12, 16, 3), dtype=np.uint8))
        scene = np.asarray(small.resize(size, Image.Resampling.BICUBIC), dtype=np.float32)
        noisy = scene + numbers.normal(0.0, 8.0, scene.shape)
        names.append(f"{size[0]}_{i}.jpg")
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(folder / names[-1], quality=90)
    return names


def arms_of(folder: Path) -> dict[str, Callable[[str], int]]:
    """What each arm does with a file; all return the bytes they would hand on."""
    by_torch, by_pillow = (Pictures(folder, cache_mb=0, resize=r) for r in ("torch", "pillow"))
    area = by_torch.cell**2
    processor = Qwen2VLImageProcessorPil(
        size={"shortest_edge": area, "longest_edge": TOKENS * area}
    )

    def ours(pictures: Pictures, name: str) -> int:
        target = pictures.target_size(pictures.size(name), TOKENS)
        return pictures.patches(pictures.pixels(name, target)).nbytes

    def theirs(name: str) -> int:
        with Image.open(folder / name) as file:
            image = file.convert("RGB")
        return int(processor(images=[image], return_tensors="pt")["pixel_values"].nbytes)

    return {
        OURS: partial(ours, by_torch),
        AGAIN: partial(ours, by_torch),
        PILLOW: partial(ours, by_pillow),
        THEIRS: theirs,
    }


def measure(folder: Path, names: list[str], rounds: int) -> dict[str, Any]:
    """Milliseconds per picture of each arm, and the ratios."""
    arms = arms_of(folder)
    handed = {arm: read(names[0]) for arm, read in arms.items()}

    def all_files(read: Callable[[str], int]) -> None:
        for name in names:
            read(name)

    steps = {arm: partial(all_files, read) for arm, read in arms.items()}
    seconds = interleave(steps, rounds, WARM, CPU)
    kept = {arm: [1000 * s / len(names) for s in own] for arm, own in seconds.items()}

    def ratio(arm: str, other: str) -> dict[str, float]:
        found = speedup(kept[other], kept[arm])  # times of the arm over the other's
        return {"median": found.median, "of_minima": found.minima}

    return {
        "ms": {arm: statistics.median(values) for arm, values in kept.items()},
        "bytes": handed,
        "ours_over_theirs": ratio(OURS, THEIRS),
        "pillow_over_theirs": ratio(PILLOW, THEIRS),
        "a_a": ratio(AGAIN, OURS),
        "rounds": kept,
    }


def main() -> None:
    """Measures, prints a table, writes the results."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=16)
    parser.add_argument("--pictures", type=int, default=12)
    parser.add_argument("--to", type=Path, default=ROOT / "benchmarks" / "results")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    report: dict[str, Any] = {
        "environment": environment(CPU) | {"pillow": pillow},
        "visual_tokens": TOKENS,
        "sizes": {},
    }
    with tempfile.TemporaryDirectory() as folder:
        for size in SIZES:
            names = write_pictures(Path(folder), size, arguments.pictures)
            found = measure(Path(folder), names, arguments.rounds)
            report["sizes"][f"{size[0]}x{size[1]}"] = found
            print(f"{size[0]}x{size[1]}")
            for key in ("ms", "ours_over_theirs", "pillow_over_theirs", "a_a"):
                print("  ", key, {n: round(v, 3) for n, v in found[key].items()})
    arguments.to.mkdir(parents=True, exist_ok=True)
    path = arguments.to / "loader.json"
    path.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
