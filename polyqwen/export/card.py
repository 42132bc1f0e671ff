"""The model card: what a stranger must know of an exported model, from its run's own files."""

import json
from collections.abc import Mapping
from pathlib import Path
from string import Template
from typing import Any

from polyqwen.atomic_files import write_text
from polyqwen.runs.history import read_history

MAIN = ("spearman", "mrr", "accuracy")  # the first that a task has is its main figure
WEIGHT = "weight/"
CARD = Template("""\
---
library_name: sentence-transformers
pipeline_tag: sentence-similarity
tags:
- sentence-transformers
- feature-extraction
- polyqwen
$front---

# $name

Embeds $inputs into vectors of $dimension numbers, made with polyqwen $version. The prefix of a task
stands before every content, queries and documents alike; compare vectors of the same task by their
cosine.

## Use

```python
from sentence_transformers import SentenceTransformer  # 6.0 or newer

model = SentenceTransformer("FOLDER"$load
vectors = model.encode(["a text", "another"], prompt_name="$task")
```
$pictures$own
`sha256sum -c SHA256SUMS` tells whether the files are those that were exported.

| task | prompt | largest picture |
|---|---|---|
$tasks

## Results on the test split

$results

## Recipe

$recipe

## Weights of the tasks in training

$weights

## Limits

Measured on the test split of the data above and nothing else; other languages, longer texts (cut
after $max_tokens tokens) and other kinds of pictures are untried. Like every embedding, its
cosines rank contents and are no probabilities. Biases of the data and of the backbone carry over.
""")
CODE = ", trust_remote_code=True)  # that is modeling_polyqwen.py, in the folder"
OWN = """
```python
from polyqwen import EmbeddingModel

vectors = EmbeddingModel.load("FOLDER").encode(["a text", "another"], task="{task}")
```
"""
PICTURES = """\
vectors = model.encode([Image.open("page.png")], prompt_name="{task}")  # PIL, also with a text:
vectors = model.encode([{{"text": "What is the total?", "image": Image.open("page.png")}}])
"""


def write_card(
    folder: Path,
    settings: Mapping[str, Any],
    dimension: int,
    run: Path,
    config: Mapping[str, Any],
    name: str,
    plain: bool = False,
) -> None:
    """Writes README.md.

    Args:
        folder: the exported folder.
        settings: content of its polyqwen.json.
        dimension: D.
        run: the run's folder; its results.json and csv/metrics.csv are read if there.
        config: the run's configuration.
        name: of the model.
        plain: it needs no code of its own, and `polyqwen.load` does not read it.
    """
    frames = settings["frames"]
    task = settings["default_task"]
    with_pictures = settings["pictures"] is not None
    base = config.get("model", {}).get("encoder", {}).get("name")
    pictures = f"\n```python\n{PICTURES.format(task=task)}```\n" if with_pictures else ""
    text = CARD.substitute(
        front=f"base_model: {base}\n" if base and not Path(base).exists() else "",
        name=name,
        load=")" if plain else CODE,
        own="" if plain else OWN.format(task=task),
        inputs="texts and pictures" if with_pictures else "texts",
        dimension=dimension,
        version=settings["polyqwen"],
        task=task,
        pictures=pictures,
        tasks="\n".join(
            f"| {name} | `{frame['prompt'] or '(none)'}` | {frame['visual_tokens']} visual tokens |"
            for name, frame in frames.items()
        ),
        results=_results(run),
        recipe=_recipe(config),
        weights=_weights(run),
        max_tokens=settings["tokens"]["max_tokens"],
    )
    write_text(folder / "README.md", text)


def _results(run: Path) -> str:
    path = run / "results.json"
    if not path.is_file():
        return "The run left no results; `python evaluate.py run_dir=RUN` makes them."
    report = json.loads(path.read_text(encoding="utf-8"))
    untrained, chance = report.get("untrained") or {}, report.get("chance") or {}
    lines = [
        "| task | measure | trained | untrained | chance | pool |",
        "|---|---|---|---|---|---|",
    ]
    for name, values in report["trained"].items():
        key = next((m for m in MAIN if m in values), None)
        if key is None or "/" in name:
            continue
        cells = [_number(part.get(name, {}).get(key)) for part in (untrained, chance)]
        pool = values.get("pool")
        size = "–" if pool is None else f"{pool:.0f}"
        lines.append(f"| {name} | {key} | {values[key]:.3f} | {' | '.join(cells)} | {size} |")
    return "\n".join(lines)


def _weights(run: Path) -> str:
    """What the weighting gave each task at five moments of the run."""
    path = run / "csv" / "metrics.csv"
    series = read_history(path) if path.is_file() else {}
    own = {name[len(WEIGHT) :]: s for name, s in series.items() if name.startswith(WEIGHT)}
    if not own:
        return "The run kept no record of them."
    steps = next(iter(own.values())).steps
    places = [round(part * (len(steps) - 1) / 4) for part in range(5)]
    heads = " | ".join(f"step {steps[place]}" for place in places)
    lines = [f"| task | {heads} |", "|---" * 6 + "|"]
    for task, s in own.items():
        cells = " | ".join(f"{s.values[min(place, len(s.values) - 1)]:.3f}" for place in places)
        lines.append(f"| {task} | {cells} |")
    return "\n".join(lines)


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _recipe(config: Mapping[str, Any]) -> str:
    curriculum, data = config.get("curriculum", {}), config.get("data", {})
    losses = {name: str(node["_target_"]).split(".")[-1] for name, node in config["losses"].items()}
    facts = {
        "data": data.get("root") or data.get("source", {}).get("_target_", "").split(".")[-1],
        "optimizer steps": curriculum.get("total_steps"),
        "losses": ", ".join(f"{task}: {loss}" for task, loss in losses.items()),
        "weighting": str(config.get("weighting", {}).get("_target_", "")).split(".")[-1],
        "seed": config.get("seed"),
    }
    lines = [f"- {name}: {value}" for name, value in facts.items() if value not in (None, "")]
    return "\n".join([*lines, "", "The whole configuration is in `run_config.yaml`."])
