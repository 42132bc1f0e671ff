"""Training steps of polyqwen beside those of other engines, on a small model.

    python -m benchmarks.engine [--workloads W1 W2 W3] [--rounds 12] [--pairs 24]

Every arm does whole steps (forward, backward, AdamW) with the same model, the same contents and the
same loss. First each must give the right gradient; then peers' and our own settings are tuned in a
few rounds; then the arms take turns. Takes minutes on one core; `benchmarks/table.py` makes tables
of the result. Peers: `pip install -r benchmarks/requirements.txt`; those missing are left out.
"""

import argparse
import json
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from benchmarks.suite import peers
from benchmarks.suite.columns import SentenceEncoder, columns
from benchmarks.suite.environment import environment
from benchmarks.suite.exactness import gradient, relative_error
from benchmarks.suite.model import TINY, build
from benchmarks.suite.ours import MODES, Ours
from benchmarks.suite.published import PublishedEncoder, published_columns
from benchmarks.suite.runner import interleave
from benchmarks.suite.workloads import CPU, collator, pairs

RESULTS = Path(__file__).parent / "results"
SLACK = 1.25  # times plain fp32's own distance from the float64 gradient
WARM, TUNING_ROUNDS = 1, 2
GRAD_CACHE_CHUNKS = (8, 4, 16, 24)
ST_SIZES = (32, 8, 16)
PUBLISHED = ("GradCache, published model", "sentence-transformers, published model")
DEFAULTED = ("GradCache", "sentence-transformers", *PUBLISHED)  # the first setting is the default
ST_TOKENS = (256, 512)
OUR_TOKENS = (128, 256, 512, 768)
W2_CHUNK = 8 * 27  # tokens of 8 of W2's queries: goal 3 compares equal chunks


class Candidate(NamedTuple):
    """One arm at one setting."""

    arm: str
    setting: str
    backward: Callable[[], object]


def candidates(name: str, count: int, module: Any) -> list[Candidate]:
    """Every arm at every setting worth a try."""
    device = torch.device("cpu")
    make = collator(OUR_TOKENS[0])
    rows = pairs(name, count, CPU)
    data, model = columns(rows, make, device), SentenceEncoder(module)
    found = [
        Candidate("plain", "", peers.plain(model, data)),
        Candidate("plain again", "", peers.plain(model, data)),
        Candidate("plain, checkpoint", "", peers.plain_checkpoint(model, data)),
    ]
    if find_spec("gradcache"):
        found += [
            Candidate("GradCache", f"chunk {size}", peers.grad_cache(model, data, size))
            for size in GRAD_CACHE_CHUNKS
        ]
    published, theirs = PublishedEncoder(module), published_columns(data)
    if find_spec("gradcache"):
        found += [
            Candidate(
                "GradCache, published model",
                f"chunk {size}",
                peers.grad_cache(published, theirs, size),
            )
            for size in GRAD_CACHE_CHUNKS
        ]
    if find_spec("sentence_transformers"):
        stock = partial(peers.sentence_transformers, published, theirs)
        found += [
            Candidate("sentence-transformers, published model", f"mini-batch {size}", stock(size))
            for size in ST_SIZES
        ]
        engine = partial(peers.sentence_transformers, model, data)
        found += [
            Candidate("sentence-transformers", f"mini-batch {size}", engine(size))
            for size in ST_SIZES
        ]
        found += [
            Candidate("sentence-transformers, by tokens", f"{tokens} tokens", engine(tokens=tokens))
            for tokens in ST_TOKENS
        ]
    budgets = OUR_TOKENS[:-1] if name == "W3" else OUR_TOKENS[1:]
    for mode in MODES:
        for tokens in budgets:
            ours = Ours(module, mode, collator(tokens)(rows))
            found.append(Candidate(f"polyqwen {mode}", f"{tokens} tokens", ours.backward))
    if name == "W2":
        ours = Ours(module, "cached", collator(W2_CHUNK)(rows))
        found.append(Candidate("polyqwen cached, chunk 8", "8 pictures", ours.backward))
        if find_spec("sentence_transformers"):
            found.append(Candidate("sentence-transformers, chunk 8", "mini-batch 8", engine(8)))
    return found


def gate(found: list[Candidate], module: nn.Module) -> dict[Candidate, dict[str, Any]]:
    """Distances of every candidate's gradient, relative, and whether it passes.

    Rounding moves plain fp32 itself; an arm passes if it is no further from the float64 gradient
    than `SLACK` times plain fp32 is.
    """
    module.double()
    exact = gradient(module, found[0].backward)
    module.float()
    single = gradient(module, found[0].backward)
    allowed = SLACK * relative_error(single, exact)
    report = {}
    for candidate in found:
        own = gradient(module, candidate.backward)
        error = relative_error(own, exact)
        report[candidate] = {
            "from_plain": relative_error(own, single),
            "from_float64": error,
            "passes": error <= allowed,
        }
    return report


def measure(name: str, count: int, rounds: int) -> dict[str, Any]:
    """One workload: the gate, the tuning, the rounds."""
    where = environment(torch.device("cpu"))
    module = build(TINY, collator(1).tokens.vocabulary, 128)
    optimizer = module.configure_optimizers()["optimizer"]
    found = candidates(name, count, module)
    gates = gate(found, module)
    device = torch.device("cpu")

    def step(candidate: Candidate) -> None:
        optimizer.zero_grad(set_to_none=True)
        candidate.backward()
        optimizer.step()

    def times(chosen: dict[str, Candidate], turns: int, warm: int) -> dict[str, list[float]]:
        arms = {key: partial(step, candidate) for key, candidate in chosen.items()}
        return interleave(arms, turns, warm, device)

    sound = [candidate for candidate in found if gates[candidate]["passes"]]
    tried = times({f"{c.arm}|{c.setting}": c for c in sound}, TUNING_ROUNDS, warm=0)
    chosen: dict[str, Candidate] = {}
    for candidate in sound:
        own = [c for c in sound if c.arm == candidate.arm]
        best = min(own, key=lambda c: min(tried[f"{c.arm}|{c.setting}"]))
        if candidate.arm in DEFAULTED and own[0] is not best:
            chosen[f"{candidate.arm} (default)"] = own[0]
        chosen[candidate.arm if len(own) == 1 else f"{candidate.arm} (best)"] = best
    seconds = times(chosen, rounds, WARM)
    return {
        "environment": where,
        "pairs": count,
        "arms": {
            key: {"setting": c.setting, "gate": gates[c], "seconds": seconds[key]}
            for key, c in chosen.items()
        },
        "tuning": tried,
        "failed": {f"{c.arm}|{c.setting}": gates[c] for c in found if not gates[c]["passes"]},
    }


def main() -> None:
    """Measures the workloads and writes the result after each."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--workloads", nargs="+", default=["W1", "W2", "W3"])
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--pairs", type=int, default=24)
    parser.add_argument("--to", type=Path, default=RESULTS / "engine.json")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    report: dict[str, Any] = {"workloads": {}}
    if arguments.to.is_file():  # workloads can be measured one by one
        report = json.loads(arguments.to.read_text(encoding="utf-8"))
    for name in arguments.workloads:
        report["workloads"][name] = measure(name, arguments.pairs, arguments.rounds)
        arguments.to.parent.mkdir(parents=True, exist_ok=True)
        arguments.to.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
        for arm, result in report["workloads"][name]["arms"].items():
            print(f"{name} {arm:45s} {result['setting']:16s} {min(result['seconds']):.3f} s")


if __name__ == "__main__":
    main()
