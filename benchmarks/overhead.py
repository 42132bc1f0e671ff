"""What Lightning's loop adds to a step: milliseconds over a plain loop that does the same work.

    python -m benchmarks.overhead [--steps 300]

One run of the trainer; between two of its steps a plain loop takes one on the same batch, with the
same module and optimizer, so both meet the same machine. Lightning's time is its whole cycle, from
the end of the hook in which the plain step runs to its next call.
"""

import argparse
import json
import statistics
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch

from benchmarks.suite.environment import environment
from benchmarks.suite.model import TINY, build
from benchmarks.suite.workloads import CPU, collator, pairs
from polyqwen.data.batch import Batch

RESULTS = Path(__file__).parent / "results"
WARM, CLIP = 20, 5.0
SMALL: dict[str, Any] = {
    "text_config": {**TINY["text_config"], "num_hidden_layers": 1, "intermediate_size": 192},
    "vision_config": {**TINY["vision_config"], "depth": 1},
}


class Repeated:
    """Batches from memory, over and over: no data path in either loop.

    Args:
        batches: at least one.
        steps: batches in all.
    """

    def __init__(self, batches: list[Batch], steps: int) -> None:
        self.batches, self.steps = batches, steps

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[Batch]:
        return (self.batches[i % len(self.batches)] for i in range(self.steps))


class Turns(pl.Callback):
    """A plain step before each of Lightning's."""

    def __init__(self) -> None:
        self.plain: list[float] = []
        self.lightning: list[float] = []
        self._since: float | None = None

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: Any, batch: Batch, batch_idx: int
    ) -> None:
        """Ends Lightning's cycle, takes the plain step, begins the next cycle."""
        start = time.process_time()
        if self._since is not None:
            self.lightning.append(start - self._since)
        optimizer = trainer.optimizers[0]
        schedule = trainer.lr_scheduler_configs[0].scheduler
        start = time.process_time()
        loss = pl_module.training_step(batch, batch_idx)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(pl_module.parameters(), CLIP)
        optimizer.step()
        schedule.step()
        self._since = time.process_time()
        self.plain.append(self._since - start)


class Bare(pl.LightningModule):
    """Hardly any work: what Lightning adds to whatever it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(8, 8)

    def training_step(self, batch: Batch, batch_idx: int) -> torch.Tensor:
        """Some loss."""
        return self.layer.weight.square().sum()

    def configure_optimizers(self) -> Any:
        """As the project's: AdamW with a schedule per step."""
        optimizer = torch.optim.AdamW(self.parameters(), lr=1e-9, fused=True)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }


def measure(module: pl.LightningModule, steps: int) -> dict[str, Any]:
    """Milliseconds of both loops' steps, without the first ones."""
    make = collator(4096)
    batches = [make(pairs("W1", 4, CPU, seed)) for seed in range(8)]
    turns = Turns()
    trainer = pl.Trainer(
        accelerator="cpu",
        devices=1,
        max_steps=steps + WARM,
        gradient_clip_val=CLIP,
        callbacks=[turns],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, train_dataloaders=Repeated(batches, steps + WARM))
    plain, lightning = turns.plain[WARM : len(turns.lightning)], turns.lightning[WARM:]
    added = [b - a for a, b in zip(plain, lightning, strict=True)]
    return {
        "plain_ms": 1e3 * statistics.median(plain),
        "added_ms": 1e3 * statistics.median(added),
        "added_minima_ms": 1e3 * (min(lightning) - min(plain)),
        "quartiles_ms": [1e3 * q for q in statistics.quantiles(added, n=4)[::2]],
        "steps": len(added),
    }


def main() -> None:
    """Measures, prints, writes the result."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--to", type=Path, default=RESULTS / "overhead.json")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", module="lightning")
    module = build(SMALL, collator(4096).tokens.vocabulary, 32)
    report = {
        "environment": environment(torch.device("cpu")),
        "polyqwen": measure(module, arguments.steps),
        "bare": measure(Bare(), arguments.steps),
    }
    arguments.to.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print(json.dumps({k: v for k, v in report.items() if k != "environment"}, indent=1))


if __name__ == "__main__":
    main()
