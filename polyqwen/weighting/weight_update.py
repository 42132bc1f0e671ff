"""What an update of the task weights leaves behind, and how it reads in a log."""

import json
import math
from pathlib import Path
from typing import NamedTuple


class WeightUpdate(NamedTuple):
    """One update of the base weights, all mappings in the order of the tasks.

    Attributes:
        step: optimizer step of the update.
        mean_losses: mean loss of the window by task, of the tasks seen in it.
        relative_losses: the same with each loss divided by its chance level.
        counts: rows of the window by task, all tasks.
        old: base weights before.
        new: base weights after.
        reason: why these weights, in words.
        notes: task -> what was special about it; tasks without a note are left out.
        causes: name -> task -> a number that led to the new weight.
    """

    step: int
    mean_losses: dict[str, float]
    relative_losses: dict[str, float]
    counts: dict[str, int]
    old: dict[str, float]
    new: dict[str, float]
    reason: str
    notes: dict[str, str]
    causes: dict[str, dict[str, float]]


SAID = 8  # tasks or losses that a line of the log can hold


def format_update(update: WeightUpdate) -> str:
    """One log line: per task mean loss, its relative value, rows, old → new; then the reason.

    Of many losses only those with something special about them and the heaviest are told of.
    """
    parts = []
    heaviest = sorted(update.new, key=lambda task: -update.new[task])
    told = list(dict.fromkeys([*update.notes, *heaviest]))[: max(SAID, len(update.notes))]
    for task, old in update.old.items():
        if task not in told:
            continue
        seen = "unseen"
        if task in update.mean_losses:
            mean, relative = update.mean_losses[task], update.relative_losses[task]
            seen = f"loss {mean:.4f} (relative {relative:.4f}, {update.counts[task]} rows)"
        causes = "".join(
            f", {name} {of[task]:.4g}" for name, of in update.causes.items() if task in of
        )
        note = f" [{update.notes[task]}]" if task in update.notes else ""
        parts.append(f"{task}: {seen}{causes} {old:.3f} → {update.new[task]:.3f}{note}")
    if more := len(update.old) - len(told):
        parts.append(f"{more} more")
    return f"step {update.step}: " + "; ".join(parts) + f" | {update.reason}"


def scalars(update: WeightUpdate) -> dict[str, float]:
    """The update by logger key: ``weighting/<what>/<task>``."""
    tables: dict[str, dict[str, float]] = {
        "mean_loss": update.mean_losses,
        "relative_loss": update.relative_losses,
        "rows": {task: float(rows) for task, rows in update.counts.items()},
        "base": update.new,
        **update.causes,
    }
    return {f"weighting/{name}/{t}": v for name, table in tables.items() for t, v in table.items()}


def append_update(update: WeightUpdate, file: Path) -> None:
    """Adds the update as one line of JSON; values that are not finite become null."""
    text = json.dumps(_finite(update._asdict()), ensure_ascii=False)
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a", encoding="utf-8") as lines:
        lines.write(text + "\n")


def read_updates(file: Path) -> list[WeightUpdate]:
    """The updates in the order of their steps.

    A resumed run repeats some: the last one of a step counts. A torn line, left by a run that was
    killed while writing, is passed over.
    """
    found: dict[int, WeightUpdate] = {}
    if file.is_file():
        for line in file.read_text(encoding="utf-8").splitlines():
            try:
                update = WeightUpdate(**json.loads(line))
            except (ValueError, TypeError):
                continue
            found[update.step] = update
    return [found[step] for step in sorted(found)]


def _finite(value: object) -> object:
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
