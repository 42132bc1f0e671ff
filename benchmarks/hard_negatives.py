"""Hard negatives: mined, random and none, at equal steps from equal weights, on real rows.

    python -m benchmarks.hard_negatives --data-root my_data [--task text_pair] [--seeds 0 1 2]

For every seed a small random model is trained for a while without negatives. It mines
(`python -m polyqwen mine`), and three runs go on from its weights for the same number of steps and
over the same rows: without negatives, with as many random documents as were mined, and with the
mined ones. All are measured on the test split. Adds to `benchmarks/results/hard_negatives.json`.
"""

import argparse
import json
import platform
import shutil
import statistics
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf

from polyqwen.build.run import build
from polyqwen.build.trainer import build_trainer
from polyqwen.config.resolvers import register
from polyqwen.inference.mining.mine import mine
from polyqwen.inference.mining.search import Rules
from polyqwen.runs.weights import load_weights
from polyqwen.training import evaluation

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "hard_negatives.json"
VARIANTS = ("none", "random", "mined")
TASKS: dict[str, tuple[str, str, tuple[str, ...]]] = {  # model, column of documents, metrics
    "text_pair": ("tiny_text", "text_b", ("recall@1", "mrr", "spearman")),
    "ocr": ("tiny", "text", ("recall@1", "recall@10", "mrr")),
}
QUIET = ("progress", "last", "best", "galleries", "histograms", "dashboard", "boost", "forgetting")


def configured(
    arguments: argparse.Namespace, out: Path, root: Path, seed: int, steps: int
) -> DictConfig:
    """One run's configuration; `schedule_steps=1` keeps temperature and loss weights where they
    end, so that both halves of the training have the same loss."""
    model, _, _ = TASKS[arguments.task]
    options = [
        *("experiment=real", f"model={model}", f"task=[{arguments.task}]", f"run_dir={out}"),
        *("curriculum=single_phase", "schedule_steps=1"),
        f"curriculum.total_steps={steps}",
        *(f"validate_every={steps}", "data.eval_rows=8", f"seed={seed}", "logger=csv"),
        *(f"data.root={root}", f"data_cache={arguments.runs}/cache", "data.num_workers=0"),
        *(f"data.rows_per_task={arguments.rows}", f"model.tokens.max_tokens={arguments.tokens}"),
        *("trainer.enable_model_summary=false", "+trainer.enable_progress_bar=false"),
        *(f"callbacks.{name}=null" for name in QUIET),
    ]
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        return compose("train", overrides=[*options, *arguments.override])


def trained(cfg: DictConfig, weights: Path | None = None) -> dict[str, float]:
    """Trains, saves the run's configuration and weights, and measures the test split."""
    out = Path(cfg.run_dir)
    shutil.rmtree(out, ignore_errors=True)
    (out / "checkpoints").mkdir(parents=True)
    OmegaConf.save(cfg, out / "config.yaml", resolve=True)
    pl.seed_everything(cfg.seed, workers=True, verbose=False)
    data, model = build(cfg)
    if weights is not None:
        load_weights(model, weights)
    trainer = build_trainer(cfg)
    trainer.fit(model, datamodule=data)
    trainer.save_checkpoint(out / "checkpoints" / "last.ckpt")
    (task,) = data.tasks
    pairs = evaluation.embed_view(model, data.eval_loader("test", (task, "none"))).pairs
    return evaluation.measure(model.metric(task), pairs)


def random_folder(mined: Path, to: Path, task: str, seed: int) -> None:
    """The mined folder with other negatives: as many of each row, drawn from all documents."""
    column, draw = TASKS[task][1], np.random.default_rng(seed)
    shutil.rmtree(to, ignore_errors=True)
    shutil.copytree(mined, to)
    file = to / task / "train.jsonl"
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    documents = sorted({row[column] for row in rows})
    for row in rows:
        drawn = draw.choice(len(documents), size=len(row["negatives"]) + 1, replace=False)
        others = [documents[i] for i in drawn if documents[i] != row[column]]
        row["negatives"] = others[: len(row["negatives"])]
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    file.write_text(text, encoding="utf-8")


def compared(arguments: argparse.Namespace, seed: int) -> dict[str, Any]:
    """One seed: the mining, and each variant's metrics."""
    place = arguments.runs / f"{arguments.task}_{seed}"
    base, task = place / "base", arguments.task
    start = time.monotonic()
    before = trained(configured(arguments, base, arguments.data_root, seed, arguments.warmup))
    rules = Rules(arguments.negatives, margin=None, relative_margin=arguments.relative_margin)
    shutil.rmtree(place / "data", ignore_errors=True)
    report = mine(base, task, place / "data" / "mined", rules.check())
    random_folder(place / "data" / "mined", place / "data" / "random", task, seed)
    weights, found = base / "checkpoints" / "last.ckpt", {"before": before}
    for variant in VARIANTS:
        root = arguments.data_root if variant == "none" else place / "data" / variant
        # rows in another order than before, and the same one for the three
        cfg = configured(arguments, place / variant, root, seed + 1000, arguments.steps)
        found[variant] = trained(cfg, weights)
    shutil.rmtree(place / "data")
    names = TASKS[task][2]
    values = {name: {key: own[key] for key in names} for name, own in found.items()}
    print(seed, json.dumps(values), f"{time.monotonic() - start:.0f} s", flush=True)
    keys = ("rows", "rows_with_negatives", "negatives_per_row", "mean_cosine_of_negatives")
    return {"values": values, "mining": {key: report[key] for key in keys}}


def summary(seeds: dict[str, Any], metrics: tuple[str, ...]) -> dict[str, Any]:
    """Means over seeds, and by how much mined beat the others at the same seed."""
    of = {
        name: {key: [own["values"][name][key] for own in seeds.values()] for key in metrics}
        for name in ("before", *VARIANTS)
    }
    means = {n: {k: statistics.mean(v) for k, v in own.items()} for n, own in of.items()}
    gains = {
        other: {
            k: [m - o for m, o in zip(of["mined"][k], of[other][k], strict=True)] for k in metrics
        }
        for other in ("random", "none")
    }
    return {"means": means, "mined_minus": gains}


def main() -> None:
    """Trains, prints, writes."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data-root", type=Path, required=True)
    parser.add_argument("--task", choices=TASKS, default="text_pair")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--warmup", type=int, default=200, help="steps before mining")
    parser.add_argument("--steps", type=int, default=150, help="steps of each variant")
    parser.add_argument("--rows", type=int, default=32, help="in a step")
    parser.add_argument("--tokens", type=int, default=48, help="of a text")
    parser.add_argument("--negatives", type=int, default=2)
    parser.add_argument("--relative-margin", type=float, default=0.05)
    parser.add_argument("--runs", type=Path, default=ROOT / "logs" / "hard_negatives")
    parser.add_argument("override", nargs="*", help="passed on to every run")
    arguments = parser.parse_args()
    arguments.runs = arguments.runs.resolve()
    register()
    seeds = {str(seed): compared(arguments, seed) for seed in arguments.seeds}
    given = ("warmup", "steps", "rows", "tokens", "negatives", "relative_margin", "override")
    entry = {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": f"{platform.machine()}, 1 thread, Python {platform.python_version()}",
        "settings": {name: getattr(arguments, name) for name in given},
        "seeds": seeds,
        **summary(seeds, TASKS[arguments.task][2]),
    }
    report = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.is_file() else {}
    report[arguments.task] = entry
    RESULTS.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(entry["means"], indent=2))


if __name__ == "__main__":
    main()
