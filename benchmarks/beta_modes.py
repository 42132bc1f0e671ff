"""What β of strategic task weighting changes in each mode: distances of final weights.

    python -m benchmarks.beta_modes [--steps 40] [--seeds 0 1 2] [--settings "no clip"]

Short runs of the default tiny model on generated data, equal but for β. Distances are those of all
trained parameters from the run with β = 1, as a part of their norm and of the way that they went
in training. Adds to `benchmarks/results/beta_modes.json`.
"""

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from hydra import compose, initialize_config_dir
from torch import Tensor

from benchmarks.suite.environment import ROOT, environment
from polyqwen.build.run import build
from polyqwen.build.trainer import build_trainer
from polyqwen.config.resolvers import register

RESULTS = ROOT / "benchmarks" / "results" / "beta_modes.json"
SETTINGS = {  # what all runs of a comparison share
    "no clip": ["callbacks.gradient_clip=null"],
    "clip 50 to 5": [],
    "no clip, no rate limit": ["callbacks.gradient_clip=null", "weighting.rate_limit=null"],
}
QUIET = ("progress", "last", "best", "galleries", "histograms", "dashboard", "forgetting")


def beta(mode: str, foundation: float, balance: float) -> list[str]:
    """Overrides that set β."""
    return [
        f"weighting.beta.mode={mode}",
        f"weighting.beta.foundation={foundation}",
        f"weighting.beta.balance={balance}",
    ]


SAME = beta("loss", 1.0, 1.0)
VARIANTS = {
    "loss, 1.2 and 1.2": beta("loss", 1.2, 1.2),
    "loss, 1.05 and 0.95": beta("loss", 1.05, 0.95),
    "alpha, 1.2 and 1.2": beta("alpha", 1.2, 1.2),
    "alpha, 1.05 and 0.95": beta("alpha", 1.05, 0.95),
    "learning_rate, 1.2 and 1.2": beta("learning_rate", 1.2, 1.2),
    "learning_rate, 1.05 and 0.95": beta("learning_rate", 1.05, 0.95),
    "for scale: head_lr + 1 %": [*SAME, "optimizer.head_lr=5.05e-4"],
}


def trained(arguments: argparse.Namespace, seed: int, *overrides: str) -> tuple[Tensor, Tensor]:
    """All trained parameters as one vector, before and after a run."""
    options = [
        *(f"run_dir={arguments.runs}/run", f"data_cache={arguments.runs}/cache", f"seed={seed}"),
        *(
            f"curriculum.switch_step={arguments.switch}",
            f"curriculum.total_steps={arguments.steps}",
        ),
        *(f"validate_every={arguments.steps}", "data.eval_rows=8", "data.source.train_rows=2000"),
        *("logger=csv", "baseline=false", "weighting.eval_steps=5"),
        *("trainer.enable_model_summary=false", "+trainer.enable_progress_bar=false"),
        *(f"callbacks.{name}=null" for name in QUIET),
    ]
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        cfg = compose("train", overrides=[*options, *overrides])
    pl.seed_everything(seed, workers=True, verbose=False)
    data, model = build(cfg)
    parameters = [p for p in model.parameters() if p.requires_grad]
    before = torch.cat([p.detach().flatten().double() for p in parameters])
    build_trainer(cfg).fit(model, datamodule=data)
    return before, torch.cat([p.detach().flatten().double() for p in parameters])


def distances(arguments: argparse.Namespace, seed: int, shared: list[str]) -> dict[str, Any]:
    """Variant -> its distance from the run with β = 1, relative to norm and to way."""
    start, reference = trained(arguments, seed, *SAME, *shared)
    found = {}
    for name, overrides in VARIANTS.items():
        away = float((trained(arguments, seed, *overrides, *shared)[1] - reference).norm())
        found[name] = {
            "of_norm": away / float(reference.norm()),
            "of_way": away / float((reference - start).norm()),
        }
        print(seed, name, found[name], flush=True)
    return found


def main() -> None:
    """Trains, prints, writes."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--switch", type=int, default=10, help="first step with all tasks")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--settings", choices=SETTINGS, nargs="+", default=list(SETTINGS))
    parser.add_argument("--runs", type=Path, default=ROOT / "logs" / "beta_modes")
    arguments = parser.parse_args()
    arguments.runs = arguments.runs.resolve()
    register()
    torch.set_num_threads(1)
    report = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.is_file() else {}
    for name in arguments.settings:
        seeds = {str(s): distances(arguments, s, SETTINGS[name]) for s in arguments.seeds}
        median = {
            variant: {
                key: statistics.median(found[variant][key] for found in seeds.values())
                for key in ("of_norm", "of_way")
            }
            for variant in VARIANTS
        }
        report[name] = {
            "environment": environment(torch.device("cpu")),
            "steps": arguments.steps,
            "switch": arguments.switch,
            "median": median,
            "seeds": seeds,
        }
    RESULTS.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
