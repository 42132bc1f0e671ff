"""What a strategy costs: training steps of every strategy beside those of static weights.

    python -m benchmarks.weighting_cost [--cycles 60] [--strategies stw mgda …] [key=value …]

One model is trained; on each batch every strategy takes one step of it, in an order drawn anew, so
that all of them meet the same lengths, the same weights and the same moods of the machine. A step
is forward, backward, clipping, optimizer and the strategy's update. A strategy's cost is the median
over cycles of (its seconds / those of static weights in the same cycle), less what a second
instance of static weights shows (A/A). Steps of the first cycles are not counted.
"""

import argparse
import json
import platform
import random
import statistics
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
import transformers
from hydra import compose, initialize_config_dir

ROOT = Path(__file__).parent.parent
WARM = 3  # cycles that are not counted
AA = "static (again)"
FULL = ("mgda", "pcgrad", "nash_mtl")  # also measured on gradients of all parameters


class Cycles(pl.Callback):
    """Before each step of the run, one timed step of each strategy on the same batch."""

    def __init__(self, strategies: dict[str, Any]) -> None:
        from polyqwen.training.callbacks.task_balance import WeightUpdater

        self.strategies = strategies
        self.updater = WeightUpdater()
        self.seconds: dict[str, list[float]] = {name: [] for name in strategies}
        self.weighers: dict[str, Any] = {}

    def on_fit_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Gives each strategy a weigher of its own."""
        from polyqwen.training.task_weigher import TaskWeigher

        losses = pl_module.step_losses
        self.weighers = {
            name: TaskWeigher(pl_module, own, losses) for name, own in self.strategies.items()
        }

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: Any, batch: Any, batch_idx: int
    ) -> None:
        """Times one step of each."""
        own = pl_module.weighting, pl_module.weigher
        for name in random.sample(list(self.strategies), len(self.strategies)):
            pl_module.weighting, pl_module.weigher = self.strategies[name], self.weighers[name]
            start = time.perf_counter()
            pl_module.training_step(batch, batch_idx).backward()
            torch.nn.utils.clip_grad_norm_(pl_module.parameters(), 5.0)
            trainer.optimizers[0].step()
            trainer.optimizers[0].zero_grad()
            self.updater.on_train_batch_end(trainer, pl_module, None, batch, batch_idx)
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            self.seconds[name].append(time.perf_counter() - start)
        pl_module.weighting, pl_module.weigher = own


def strategies_of(names: list[str], config: Any) -> dict[str, Any]:
    """Strategies by name; those in FULL once more with the reference's gradients."""
    from polyqwen.build.instantiate import make

    made = {}
    for name in ["static", AA, *names, *(f"{name} (full)" for name in FULL if name in names)]:
        option, _, full = name.partition(" ")
        gram = ["weighting/gram=full"] if full == "(full)" else []
        weighting = make(config([f"weighting={option}", *gram]).weighting)
        weighting.bind(dict.fromkeys(weighting.tasks, 0.0))
        made[name] = weighting
    return made


def main() -> None:
    """Measures, prints a table, writes the results."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--cycles", type=int, default=60)
    parser.add_argument("--strategies", nargs="*", default=None)
    parser.add_argument("--to", type=Path, default=ROOT / "benchmarks" / "results")
    parser.add_argument("overrides", nargs="*", help="of the configuration, as for train.py")
    arguments = parser.parse_args()

    from polyqwen.build.run import build
    from polyqwen.build.trainer import build_trainer
    from polyqwen.config.resolvers import register

    register()
    options = {path.stem for path in (ROOT / "conf" / "weighting").glob("*.yaml")}
    names = arguments.strategies or sorted(options - {"static", "torchjd"})
    with tempfile.TemporaryDirectory() as folder:

        def config(overrides: list[str]) -> Any:
            fixed = ["curriculum.switch_step=0", "weighting=static", "logger=csv"]
            fixed += [f"run_dir={folder}", "baseline=false", "data.trusted_rows=32"]
            with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
                return compose("train", [*fixed, *arguments.overrides, *overrides])

        cycles = Cycles(strategies_of(names, config))
        cfg = config(["callbacks.progress=null", "+trainer.enable_progress_bar=false"])
        cfg.curriculum.total_steps = arguments.cycles + WARM
        cfg.callbacks = {}
        pl.seed_everything(0, verbose=False)
        data, model = build(cfg)
        for weighting in cycles.strategies.values():
            weighting.to(model.device)
        trainer = build_trainer(cfg)
        trainer.limit_val_batches = 0
        trainer.callbacks.append(cycles)
        trainer.fit(model, datamodule=data)

    base = cycles.seconds["static"][WARM:]
    ratios = {
        name: [own / static for own, static in zip(seconds[WARM:], base, strict=True)]
        for name, seconds in cycles.seconds.items()
    }
    floor = statistics.median(ratios[AA])
    report = {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": f"{platform.machine()}, {_device()}, {torch.get_num_threads()} threads",
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
        "overrides": arguments.overrides,
        "cycles": arguments.cycles,
        "static_seconds": statistics.median(base),
        "a_a": floor,
        "cost": {n: 1.0 + statistics.median(r) - floor for n, r in ratios.items() if n != "static"},
        "quartiles": {n: statistics.quantiles(r, n=4)[::2] for n, r in ratios.items()},
    }
    for name, cost in sorted(report["cost"].items(), key=lambda item: item[1]):
        print(f"{name:20s} {cost:.3f}")
    arguments.to.mkdir(parents=True, exist_ok=True)
    suffix = "_gpu" if torch.cuda.is_available() else ""
    path = arguments.to / f"weighting_cost{suffix}.json"
    path.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


def _device() -> str:
    return torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"


if __name__ == "__main__":
    main()
