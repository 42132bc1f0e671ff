"""Partial labels: all label tasks together, each task alone, and baselines, on real texts.

    python -m benchmarks.partial_labels --data-root my_data [--seeds 0 1 2] [--steps 1200]

Trains `experiment=text_multitask model=tiny_text` once for all tasks and once per task, with the
same number of steps and the same rows per step of each task's own stream, for every seed; finished
runs are found again. Beside them stand the majority class and TF-IDF with logistic regression on
the same rows. Writes `benchmarks/results/partial_labels.json` and prints the table.
"""

import argparse
import json
import platform
import statistics
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
TASKS = ("question_type", "intent", "sentiment", "topic", "sentiment5")
PAIR = "text_pair"
ROWS = 16  # of each task's own stream in a step
HEADINGS = ("task", "rows", "majority", "TF-IDF + LR", "alone", "together")


def trained(tasks: tuple[str, ...], seed: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """Test metrics by task of one run, made now or found."""
    name = "together" if len(tasks) > 1 else tasks[0]
    out = arguments.runs / f"{name}_{seed}_{arguments.steps}"
    if not (out / "results.json").is_file():
        options = [
            *("experiment=text_multitask", "model=tiny_text", f"data.root={arguments.data_root}"),
            *(f"task=[{','.join(tasks)}]", f"seed={seed}", "baseline=false", "logger=csv"),
            *("data.batch_size=null", f"data.rows_per_task={ROWS}"),
            *(f"curriculum.total_steps={arguments.steps}", f"validate_every={arguments.steps}"),
            *("callbacks.progress=null", "callbacks.last=null", "callbacks.best=null"),
            *(f"hydra.run.dir={out}", *arguments.override),
        ]
        subprocess.run([sys.executable, "train.py", *options], cwd=ROOT, check=True)
    results: dict[str, Any] = json.loads((out / "results.json").read_text())
    return results["trained"]


def texts(root: Path, split: str, task: str) -> tuple[list[str], list[str]]:
    """Texts with a label of a task, and the labels."""
    lines = (root / "text_labels" / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [row for row in map(json.loads, lines) if task in row["labels"]]
    return [row["text"] for row in rows], [row["labels"][task] for row in rows]


def baselines(root: Path, task: str) -> dict[str, float]:
    """Macro-F1 of the training split's majority class, and of words and word pairs."""
    from sklearn.dummy import DummyClassifier
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import f1_score
    from sklearn.pipeline import make_pipeline

    words, labels = texts(root, "train", task)
    test, truth = texts(root, "test", task)
    linear = make_pipeline(
        TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True),
        LogisticRegression(C=10.0, max_iter=2000),
    ).fit(words, labels)
    majority = DummyClassifier(strategy="most_frequent").fit(words, labels)
    return {
        "rows": float(len(words)),
        "majority": float(f1_score(truth, majority.predict(test), average="macro")),
        "tfidf": float(f1_score(truth, linear.predict(test), average="macro")),
    }


def spread(values: list[float]) -> dict[str, Any]:
    """Mean and range over seeds."""
    return {"mean": statistics.mean(values), "values": values}


def shown(entry: dict[str, Any]) -> str:
    """The mean, with the range where there are several seeds."""
    values = entry["values"]
    extra = f" [{min(values):.3f}, {max(values):.3f}]" if len(values) > 1 else ""
    return f"{entry['mean']:.3f}{extra}"


def main() -> None:
    """Trains, prints a table, writes the results."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data-root", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=1200)
    parser.add_argument("--runs", type=Path, default=ROOT / "logs" / "partial_labels")
    parser.add_argument("--together-only", action="store_true", help="leave out the single tasks")
    parser.add_argument("override", nargs="*", help="passed on to train.py")
    arguments = parser.parse_args()

    together = [trained((PAIR, *TASKS), seed, arguments) for seed in arguments.seeds]
    report: dict[str, Any] = {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": f"{platform.machine()}, Python {platform.python_version()}",
        "steps": arguments.steps,
        "seeds": arguments.seeds,
        "overrides": arguments.override,
        "tasks": {},
    }
    print("| " + " | ".join(HEADINGS) + " |\n|:--|" + "--:|" * (len(HEADINGS) - 1))
    for task in (*TASKS, PAIR):
        metric = "spearman" if task == PAIR else "macro_f1"
        entry: dict[str, Any] = {} if task == PAIR else baselines(arguments.data_root, task)
        entry["together"] = spread([run[task][metric] for run in together])
        if not arguments.together_only:
            alone = [trained((task,), seed, arguments) for seed in arguments.seeds]
            entry["alone"] = spread([run[task][metric] for run in alone])
        report["tasks"][task] = {"metric": metric, **entry}
        cells = [
            f"`{task}`" + (", Spearman" if task == PAIR else ""),
            f"{entry['rows']:,.0f}" if "rows" in entry else "–",
            *(f"{entry[name]:.3f}" if name in entry else "–" for name in ("majority", "tfidf")),
            *(shown(entry[name]) if name in entry else "–" for name in ("alone", "together")),
        ]
        print("| " + " | ".join(cells) + " |", flush=True)
    path = ROOT / "benchmarks" / "results" / "partial_labels.json"
    path.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print(f"\nwritten to {path.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
