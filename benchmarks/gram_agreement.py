"""How well cheap gradients stand for all of them: cosines between tasks, over a training run.

    python -m benchmarks.gram_agreement [--every 5] [--to benchmarks/results] [key=value …]

Trains as `train.py` would, and every few steps takes the tasks' gradients from all three providers
on the same batch. Reports, against gradients of all parameters, the correlation of the cosines
between tasks, how often the sign is the same, and the mean cosine.
"""

import argparse
import itertools
import json
import platform
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
import transformers
from hydra import compose, initialize_config_dir

from polyqwen.weighting.by_gradient.base import cosines
from polyqwen.weighting.gram import FullParameterGram, Graph, SharedHeadGram
from polyqwen.weighting.gram import SummedRepresentationGram as SummedGram

ROOT = Path(__file__).parent.parent


class Cosines(pl.Callback):
    """Cosines and norms from each provider, before every few steps."""

    def __init__(self, every: int) -> None:
        self.every = every
        self.grams = {"shared_head": SharedHeadGram(), "summed": SummedGram()}
        self.grams |= {"head_parameters": FullParameterGram(), "full": FullParameterGram()}
        self.cosines: dict[str, list[list[float]]] = {name: [] for name in self.grams}
        self.norms: dict[str, list[list[float]]] = {name: [] for name in self.grams}

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: Any, batch: Any, batch_idx: int
    ) -> None:
        """Takes the gradients of this batch."""
        if batch_idx % self.every or len(batch.tasks) < 2:
            return
        features = pl_module.features(batch)
        own = pl_module.step_losses
        outputs = own.outputs(own.pairs(features.embeddings, features.tasks))
        losses = [output.total for output in outputs.values()]
        trained = [p for p in pl_module.parameters() if p.requires_grad]
        head = [*pl_module.pooling.parameters(), *pl_module.projection.parameters()]
        of = dict.fromkeys(self.grams, trained) | {"head_parameters": head}
        for name, gram in self.grams.items():
            gram.add(losses, Graph(features.pooled, features.projected, of[name]))
            products = gram.take()
            assert products is not None
            norms, unit = cosines(products.tasks)
            pairs_of = itertools.combinations(range(len(losses)), 2)
            self.cosines[name].append([float(unit[i, j]) for i, j in pairs_of])
            self.norms[name].append((norms / norms.mean()).tolist())


def agreement(cheap: Any, full: Any, window: int = 10) -> dict[str, float]:
    """Pearson correlation and share of equal signs of two sets of numbers, (batches, pairs)."""
    averaged = [
        np.stack([np.asarray(of[i : i + window]).mean(0) for i in range(0, len(of), window)])
        for of in (cheap, full)
    ]
    a, b = np.asarray(cheap).ravel(), np.asarray(full).ravel()
    return {
        "correlation": float(np.corrcoef(a, b)[0, 1]),
        f"correlation_of_means_over_{window}": float(
            np.corrcoef(*(m.ravel() for m in averaged))[0, 1]
        ),
        "same_sign": float((np.sign(a) == np.sign(b)).mean()),
        "mean": float(a.mean()),
        "mean_of_full": float(b.mean()),
    }


def main() -> None:
    """Trains, compares, prints, writes the results."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--every", type=int, default=5)
    parser.add_argument("--to", type=Path, default=ROOT / "benchmarks" / "results")
    parser.add_argument("overrides", nargs="*", help="of the configuration, as for train.py")
    arguments = parser.parse_args()

    from polyqwen.build.run import build
    from polyqwen.build.trainer import build_trainer
    from polyqwen.config.resolvers import register

    register()
    fixed = ["weighting=static", "logger=csv", "callbacks.progress=null"]
    fixed += ["+trainer.enable_progress_bar=false"]
    with tempfile.TemporaryDirectory() as folder:
        with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
            cfg = compose("train", [f"run_dir={folder}", *fixed, *arguments.overrides])
        pl.seed_everything(0, verbose=False)
        data, model = build(cfg)
        trainer = build_trainer(cfg)
        trainer.limit_val_batches = 0
        cosines = Cosines(arguments.every)
        trainer.callbacks.append(cosines)
        trainer.fit(model, datamodule=data)

    report: dict[str, Any] = {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": f"{platform.machine()}, CPU",
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
        "overrides": arguments.overrides,
        "steps": int(cfg.curriculum.total_steps),
        "compared": len(cosines.cosines["full"]),
    }
    for name in ("shared_head", "summed", "head_parameters"):
        report[name] = {
            "cosines": agreement(cosines.cosines[name], cosines.cosines["full"]),
            "relative_norms": agreement(cosines.norms[name], cosines.norms["full"]),
        }
    print(json.dumps(report, indent=2))
    arguments.to.mkdir(parents=True, exist_ok=True)
    path = arguments.to / "gram_agreement.json"
    path.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
