"""What an update of the task weights leaves behind, and how it reads in a log."""

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
