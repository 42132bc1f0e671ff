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
    """

    step: int
    mean_losses: dict[str, float]
    relative_losses: dict[str, float]
    counts: dict[str, int]
    old: dict[str, float]
    new: dict[str, float]
    reason: str
    notes: dict[str, str]


def format_update(update: WeightUpdate) -> str:
    """One log line: per task mean loss, its relative value, rows, old → new; then the reason."""
    parts = []
    for task, old in update.old.items():
        seen = "unseen"
        if task in update.mean_losses:
            mean, relative = update.mean_losses[task], update.relative_losses[task]
            seen = f"loss {mean:.4f} (relative {relative:.4f}, {update.counts[task]} rows)"
        note = f" [{update.notes[task]}]" if task in update.notes else ""
        parts.append(f"{task}: {seen} {old:.3f} → {update.new[task]:.3f}{note}")
    return f"step {update.step}: " + "; ".join(parts) + f" | {update.reason}"
