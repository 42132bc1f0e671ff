"""The model card: what a stranger must know of an exported model, from its run's own files."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined

from polyqwen.atomic_files import write_text
from polyqwen.runs.history import read_history

TEMPLATE = Path(__file__).with_name("card.md.j2")
MAIN = ("spearman", "mrr", "accuracy")  # the first that a task has is its main figure
WEIGHT = "weight/"
MOMENTS = 5  # of the run, at which its task weights are told


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
    base = config.get("model", {}).get("encoder", {}).get("name")
    steps, weights = _weights(run)
    template = Environment(
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    ).from_string(TEMPLATE.read_text(encoding="utf-8"))
    text = template.render(
        base_model=base if base and not Path(base).exists() else None,
        name=name,
        plain=plain,
        pictures=settings["pictures"] is not None,
        dimension=dimension,
        version=settings["polyqwen"],
        task=settings["default_task"],
        frames=settings["frames"],
        results=_results(run),
        recipe=_recipe(config),
        steps=steps,
        weights=weights,
        max_tokens=settings["tokens"]["max_tokens"],
    )
    write_text(folder / "README.md", text)


def _results(run: Path) -> list[list[str]] | None:
    """Each task's main figure: task, measure, trained, untrained, chance, pool."""
    path = run / "results.json"
    if not path.is_file():
        return None
    report = json.loads(path.read_text(encoding="utf-8"))
    rows = []
    for name, values in report["trained"].items():
        key = next((m for m in MAIN if m in values), None)
        if key is None or "/" in name:
            continue
        others = [(report.get(part) or {}).get(name, {}) for part in ("untrained", "chance")]
        figures = [_number(part.get(key)) for part in (values, *others)]
        rows.append([name, key, *figures, _number(values.get("pool"), digits=0)])
    return rows


def _weights(run: Path) -> tuple[list[int], dict[str, list[str]]]:
    """Steps, and what the weighting gave each task at them."""
    path = run / "csv" / "metrics.csv"
    series = read_history(path) if path.is_file() else {}
    found = {name[len(WEIGHT) :]: s for name, s in series.items() if name.startswith(WEIGHT)}
    if not found:
        return [], {}
    steps = next(iter(found.values())).steps
    places = [round(part * (len(steps) - 1) / (MOMENTS - 1)) for part in range(MOMENTS)]
    weights = {
        task: [_number(s.values[min(place, len(s.values) - 1)]) for place in places]
        for task, s in found.items()
    }
    return [steps[place] for place in places], weights


def _number(value: float | None, digits: int = 3) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def _recipe(config: Mapping[str, Any]) -> dict[str, Any]:
    curriculum, data = config.get("curriculum", {}), config.get("data", {})
    losses = {name: str(node["_target_"]).split(".")[-1] for name, node in config["losses"].items()}
    facts = {
        "data": data.get("root") or data.get("source", {}).get("_target_", "").split(".")[-1],
        "optimizer steps": curriculum.get("total_steps"),
        "losses": ", ".join(f"{task}: {loss}" for task, loss in losses.items()),
        "weighting": str(config.get("weighting", {}).get("_target_", "")).split(".")[-1],
        "seed": config.get("seed"),
    }
    return {name: value for name, value in facts.items() if value not in (None, "")}
