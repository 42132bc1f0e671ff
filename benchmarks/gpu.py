"""Qwen2-VL-2B from its configuration, random weights in bf16, on one GPU: speed and memory.

    python -m benchmarks.gpu [--parts W1 W2 W3 W5 W6] [--pairs 120]
    python -m benchmarks.gpu --tiny   # on a CPU with a small model: only to see it run

Needs torch, transformers and lightning; `datasets` and Hydra may be absent. 120 pairs are one
GPU's part of a step of 480 on four. Takes about 15 minutes; the result is written after each part.
"""

import argparse
import json
from functools import partial
from importlib.util import find_spec
from itertools import cycle
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.utilities import move_data_to_device

from benchmarks.suite.absent import stand_in

stand_in("datasets", "pyarrow")

from benchmarks.suite import peers  # noqa: E402
from benchmarks.suite.columns import SentenceEncoder, columns  # noqa: E402
from benchmarks.suite.environment import environment  # noqa: E402
from benchmarks.suite.exactness import gradient, relative_error  # noqa: E402
from benchmarks.suite.flops import useful  # noqa: E402
from benchmarks.suite.model import QWEN2_VL_2B, TINY, build  # noqa: E402
from benchmarks.suite.ours import MODES, Ours  # noqa: E402
from benchmarks.suite.runner import Step, clock, interleave, peak_memory  # noqa: E402
from benchmarks.suite.several_tasks import weighting_steps  # noqa: E402
from benchmarks.suite.workloads import CPU, GPU, collator, lengths, pairs, patches  # noqa: E402
from polyqwen.models.loading import Vocabulary  # noqa: E402

RESULTS = Path(__file__).parent / "results"
PARTS = ("W1", "W2", "W3", "W5", "W6")
CHUNK_TOKENS = 8192
SLACK = 1.25  # times plain bf16's own distance from the fp32 gradient
SETS = 3  # of inputs, taken in turn
WARM = 2


class Setting:
    """Model, sizes and device of a run.

    Args:
        tiny: the small model and short contents.
        count: pairs of a step.
        rounds: of each measurement.
    """

    def __init__(self, tiny: bool, count: int, rounds: int) -> None:
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        if self.device.type == "cpu" and not tiny:
            raise SystemExit("there is no GPU here; --tiny shows on a CPU that it all runs")
        self.config, self.sizes = (TINY, CPU) if tiny else (QWEN2_VL_2B, GPU)
        self.chunk_tokens = 256 if tiny else CHUNK_TOKENS
        self.embedding = 128 if tiny else 1024
        self.count, self.rounds = count, rounds
        known = collator(1).tokens.vocabulary
        size = known.size if tiny else 151_936
        self.vocabulary = Vocabulary(size, known.new_tokens, known.image_id)

    def module(self, **more: Any) -> Any:
        """Weights drawn on the device, in bf16."""
        with self.device:
            module = build(self.config, self.vocabulary, self.embedding, **more)
        return module.to(self.device, torch.bfloat16)

    def batch(self, name: str, count: int, seed: int = 0) -> Any:
        """Of the project's collator, on the device."""
        rows = pairs(name, count, self.sizes, seed)
        return move_data_to_device(collator(self.chunk_tokens)(rows), self.device)

    def useful(self, name: str) -> float:
        """Mean useful operations of a step."""
        make, total = collator(1), 0.0
        for seed in range(SETS):
            rows = pairs(name, self.count, self.sizes, seed)
            total += useful(lengths(rows, make), patches(rows, make), self.config)
        return total / SETS


def arms(setting: Setting, module: Any, name: str, count: int) -> dict[str, list[Step]]:
    """Every arm's backward pass on each set of inputs."""
    model, make = SentenceEncoder(module), collator(1)
    found: dict[str, list[Step]] = {}
    for seed in range(SETS):
        batch = setting.batch(name, count, seed)
        data = columns(pairs(name, count, setting.sizes, seed), make, setting.device)
        engines: dict[str, Step] = {f"polyqwen {m}": Ours(module, m, batch).backward for m in MODES}
        engines["plain, checkpoint"] = peers.plain_checkpoint(model, data)
        if find_spec("gradcache"):
            for size in (8, 32):
                engines[f"GradCache, chunk {size}"] = peers.grad_cache(model, data, size)
        if find_spec("sentence_transformers"):
            engine = partial(peers.sentence_transformers, model, data)
            engines["sentence-transformers (default)"] = engine(32)
            tokens = setting.chunk_tokens
            engines[f"sentence-transformers, {tokens} tokens"] = engine(tokens=tokens)
        for key, backward in engines.items():
            found.setdefault(key, []).append(backward)
    return found


def ceilings(setting: Setting) -> dict[str, float]:
    """What the chip does at best: TFLOP/s of a bf16 product, TB/s of a copy (random values)."""
    size = 256 if setting.device.type == "cpu" else 8192
    a, b = (torch.randn(size, size, device=setting.device, dtype=torch.bfloat16) for _ in range(2))
    steps: dict[str, Step] = {"matmul": lambda: a @ b, "copy": lambda: a.clone()}
    repeats = 20

    def many(step: Step) -> None:
        for _ in range(repeats):
            step()

    chosen = {key: partial(many, step) for key, step in steps.items()}
    best = {k: min(v) / repeats for k, v in interleave(chosen, 5, 2, setting.device).items()}
    moved = 2 * a.numel() * a.element_size()
    return {"tflops": 2 * size**3 / best["matmul"] / 1e12, "tb_s": moved / best["copy"] / 1e12}


def gate(setting: Setting, module: Any, name: str) -> dict[str, dict[str, Any]]:
    """Gradients of 8 pairs in bf16 against plain ones in fp32."""
    found = arms(setting, module, name, 8)
    plain = found["plain, checkpoint"][0]
    module.float()
    exact = gradient(module, plain, torch.float32)
    module.to(torch.bfloat16)
    errors = {
        key: relative_error(gradient(module, steps[0], torch.float32), exact)
        for key, steps in found.items()
    }
    allowed = SLACK * errors["plain, checkpoint"]
    return {key: {"from_fp32": e, "passes": e <= allowed} for key, e in errors.items()}


def workload(setting: Setting, name: str) -> dict[str, Any]:
    """All arms that pass the gate and fit, in turns."""
    module = setting.module()
    gates = gate(setting, module, name)
    optimizer = module.configure_optimizers()["optimizer"]
    turning: dict[str, Step] = {}
    memory: dict[str, int | str | None] = {}
    for key, backwards in arms(setting, module, name, setting.count).items():
        if not gates[key]["passes"]:
            continue
        step = partial(_step, optimizer, cycle(backwards))
        try:
            memory[key] = peak_memory(step, setting.device)
            turning[key] = step
        except torch.OutOfMemoryError:
            memory[key] = "out of memory"
            optimizer.zero_grad(set_to_none=True)
            torch.cuda.empty_cache()
    seconds = interleave(turning, setting.rounds, WARM, setting.device)
    return {
        "pairs": setting.count,
        "useful_flops": setting.useful(name),
        "gates": gates,
        "peak_bytes": memory,
        "seconds": seconds,
    }


def _step(optimizer: torch.optim.Optimizer, backwards: Any) -> None:
    optimizer.zero_grad(set_to_none=True)
    next(backwards)()
    optimizer.step()


def growth(setting: Setting) -> list[dict[str, Any]]:
    """W5: peak memory and time of the cached mode by batch size."""
    module = setting.module()
    optimizer = module.configure_optimizers()["optimizer"]
    found = []
    for factor in (1, 2, 4, 8, 16):
        count = setting.count * factor
        ours = Ours(module, "cached", setting.batch("W2", count), 4 * setting.chunk_tokens)
        step = partial(_step, optimizer, cycle([ours.backward]))
        step()
        peak, start = peak_memory(step, setting.device), clock(setting.device)
        step()
        found.append({"pairs": count, "peak": peak, "seconds": clock(setting.device) - start})
    return found


def main() -> None:
    """Measures the parts and writes the result after each."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--pairs", type=int, default=120)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--to", type=Path, default=RESULTS / "gpu.json")
    arguments = parser.parse_args()
    setting = Setting(arguments.tiny, arguments.pairs, arguments.rounds)
    report = earlier(arguments.to, arguments.tiny)
    best = ceilings(setting)  # anew in each call: a chip's mood counts
    for part in arguments.parts:
        if part == "W5":
            result: Any = growth(setting)
        elif part == "W6":
            result = {
                str(tasks): interleave(
                    weighting_steps(setting, tasks), setting.rounds, WARM, setting.device
                )
                for tasks in (1, 2, 4, 8)
            }
        else:
            result = workload(setting, part)
        report["parts"][part] = {
            "environment": environment(setting.device),
            "ceilings": best,
            "result": result,
        }
        arguments.to.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
        print(part, "done")


def earlier(path: Path, tiny: bool) -> dict[str, Any]:
    """What an earlier call measured with the same model; parts can be measured one by one."""
    if path.is_file():
        report: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if report["tiny"] == tiny:
            return report
    return {"tiny": tiny, "parts": {}}


if __name__ == "__main__":
    main()
