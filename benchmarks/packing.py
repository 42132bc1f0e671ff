"""What packing saves: a training step of the tiny encoder on contents of mixed lengths.

    python -m benchmarks.packing [--rounds 10] [--contents 64] [--to benchmarks/results]

Lengths are drawn as those of half texts (median 48 tokens), half pictures with a text (median 160),
both log-normal. One arm packs them, the others pad: eight by eight in the order they came in, or
sorted by length and cut into passes of so many padded tokens, as the collator does. A step is
forward and backward of the language model, in CPU time of one thread; the arms take turns, and
the first round is not counted. Gradients of all arms are compared first.
"""

import argparse
import json
import statistics
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from torch import Tensor

from benchmarks.suite.environment import ROOT, environment
from benchmarks.suite.runner import interleave, speedup
from polyqwen.models.encoder import Chunk
from polyqwen.models.loading import Vocabulary
from polyqwen.models.qwen2_vl import Qwen2VLEncoder

CPU, WARM = torch.device("cpu"), 1
VOCABULARY = Vocabulary(1000, (), 999)
BUDGETS = (1024, 4096, 16384)  # padded tokens per pass
PACKED, AGAIN = "packed", "packed (again)"


def lengths_of(number: int) -> list[int]:
    """Tokens of the contents, in the order they come in."""
    numbers = np.random.default_rng(0)
    medians = np.where(np.arange(number) % 2, 160, 48)
    return (medians * numbers.lognormal(0.0, 0.7, number)).clip(4, 512).astype(int).tolist()


def chunk_of(lengths: list[int]) -> Chunk:
    """Random texts; a text's ids depend on its length alone, so that all arms read the same."""
    ids = torch.zeros(len(lengths), max(lengths), dtype=torch.long)
    mask = torch.arange(ids.shape[1]) < torch.tensor(lengths)[:, None]
    for row, length in zip(ids, lengths, strict=True):
        generator = torch.Generator().manual_seed(length)
        row[:length] = torch.randint(1, 900, (length,), generator=generator)
    positions = torch.arange(ids.shape[1]).expand(3, *ids.shape)
    return Chunk(ids, mask, positions, None, lengths=lengths)


def cut(lengths: list[int], budget: int) -> list[Chunk]:
    """Sorted, then cut so that rows × longest stays within the budget."""
    parts: list[list[int]] = [[]]
    for length in sorted(lengths):
        if parts[-1] and (len(parts[-1]) + 1) * length > budget:
            parts.append([])
        parts[-1].append(length)
    return [chunk_of(part) for part in parts]


def step(encoder: Qwen2VLEncoder, chunks: list[Chunk]) -> Tensor:
    """The gradient of the sum of squared means of the hidden states."""
    encoder.zero_grad(set_to_none=True)
    for chunk in chunks:
        weights = chunk.mask / chunk.mask.sum(1, keepdim=True)  # (B, L)
        means = torch.einsum("bl,blh->bh", weights, encoder(chunk, None))
        means.pow(2).sum().backward()
    gradients = [p.grad.flatten() for p in encoder.parameters() if p.grad is not None]
    return torch.cat(gradients)


def main() -> None:
    """Compares, measures, prints a table, writes the results."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--contents", type=int, default=96)
    parser.add_argument("--to", type=Path, default=ROOT / "benchmarks" / "results")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    config = yaml.safe_load((ROOT / "conf/model/encoder/qwen2_vl_tiny.yaml").read_text())["config"]
    padded, packed = (
        Qwen2VLEncoder.from_config(config, attention=name, vocabulary=VOCABULARY)
        for name in ("sdpa", "packed")
    )
    packed.load_state_dict(padded.state_dict())
    lengths = lengths_of(arguments.contents)
    whole = [chunk_of(sorted(lengths))]
    arms = {PACKED: (packed, whole), AGAIN: (packed, whole)}
    arrived = [chunk_of(lengths[i : i + 8]) for i in range(0, len(lengths), 8)]
    arms["padded, 8 by 8"] = (padded, arrived)
    for budget in BUDGETS:
        arms[f"padded, sorted, {budget}"] = (padded, cut(lengths, budget))
    reference = step(*arms[PACKED])
    report: dict[str, dict[str, Any]] = {}
    for arm, (encoder, chunks) in arms.items():
        gradient = step(encoder, chunks)
        computed = sum(lengths) if encoder.packs else sum(c.ids.numel() for c in chunks)
        report[arm] = {
            "passes": len(chunks),
            "padding": 1.0 - sum(lengths) / computed,
            "gradient_difference": float((gradient - reference).norm() / reference.norm()),
        }
    steps = {arm: partial(step, *own) for arm, own in arms.items()}
    seconds = interleave(steps, arguments.rounds, WARM, CPU)
    for arm, own in seconds.items():
        over = speedup(seconds[PACKED], own)
        report[arm] |= {
            "seconds": statistics.median(own),
            "over_packed": over.median,
            "over_packed_of_minima": over.minima,
            "rounds": own,
        }
        print(f"{arm:24s}", {k: round(v, 9) for k, v in report[arm].items() if k != "rounds"})
    result = {
        "environment": environment(CPU),
        "contents": arguments.contents,
        "tokens": sum(lengths),
        "arms": report,
    }
    arguments.to.mkdir(parents=True, exist_ok=True)
    path = arguments.to / "packing.json"
    path.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
