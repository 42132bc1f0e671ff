"""The tasks' weights, and why they moved: what the strategy saw at each update."""

from collections.abc import Sequence
from itertools import pairwise

from polyqwen.report.page.charts import Charts, grid
from polyqwen.report.page.markup import Html, table, tag
from polyqwen.report.sections.results import number
from polyqwen.report.sections.summary import class_of
from polyqwen.runs.history import by_task
from polyqwen.runs.run_folder import RunFolder
from polyqwen.weighting.weight_update import WeightUpdate

SHOWN = 40  # updates in full
MOVED = 0.005  # relative change below which a weight stands still
SEEN = {
    "mean_loss": ("Mean loss of the window", "what the strategy is told of each task"),
    "relative_loss": ("The same relative to chance", ""),
    "gradient_norm": ("Gradient norm", "at the place the strategy looks at"),
    "cosine": ("Mean cosine to the other tasks' gradients", "below 0: against the others"),
    "rows": ("Rows of the window", ""),
    "base": ("Weight before boost", "what the strategy decided"),
}


def weights(run: RunFolder, charts: Charts) -> list[Html]:
    """Weights as applied, the strategy's view, and every update with its reason."""
    applied = by_task(run.history, "weight")
    share = by_task(run.history, "train/share")
    if not applied:
        return []
    name = class_of(run, "weighting")
    figures = [
        charts.lines("Weight as applied", applied, "λ · boost", zero=True),
        charts.lines("Share of the total loss", share, zero=True, smooth=True),
    ]
    shown = [tag("p", f"Strategy: {name}. ", _why(run.updates), cls="note"), grid(figures)]
    seen = grid(_seen(run, charts))
    if seen:
        shown += [tag("h3", "What the strategy saw"), seen]
    return [*shown, *_updates(run.updates)]


def _why(updates: Sequence[WeightUpdate]) -> list[Html]:
    """Each task's way in one clause, with its largest step."""
    lines = []
    for task in updates[0].old if updates else ():
        moves = [(u.new[task] / u.old[task], u) for u in updates if u.old.get(task)]
        if not moves:
            continue
        ratio, update = max(moves, key=lambda move: abs(move[0] - 1.0))
        way = f"{task}: {updates[0].old[task]:.3f} → {updates[-1].new[task]:.3f}"
        if abs(ratio - 1.0) >= MOVED:
            loss = update.mean_losses.get(task)
            because = "" if loss is None else f", when its mean loss was {loss:.3f}"
            way += f"; most at step {update.step} (× {ratio:.2f}{because})"
        lines.append(tag("br") + tag("span", way))
    return [Html(line) for line in lines]


def _seen(run: RunFolder, charts: Charts) -> list[Html]:
    """Everything that updates log by task; known names first, in the order of the table above."""
    found = {key.split("/")[1] for key in run.history if key.startswith("weighting/")}
    order = [name for name in SEEN if name in found] + sorted(found - set(SEEN))
    figures = []
    for name in order:
        title, note = SEEN.get(name, (name.replace("_", " "), ""))
        figures.append(charts.lines(title, by_task(run.history, f"weighting/{name}"), note))
    return figures


def _updates(updates: Sequence[WeightUpdate]) -> list[Html]:
    if not updates:
        return []
    shown = _chosen(updates)
    some = (
        "" if len(shown) == len(updates) else f"{len(shown)} of {len(updates)}, the largest moves"
    )
    heading = tag("h3", "Every update" if not some else f"Updates ({some})")
    return [heading, *(_update(update) for update in shown)]


def _chosen(updates: Sequence[WeightUpdate]) -> list[WeightUpdate]:
    """All of a few; of many those that moved a weight most, in order, with first and last."""
    if len(updates) <= SHOWN:
        return list(updates)
    order = sorted(range(1, len(updates) - 1), key=lambda i: -_size(updates[i]))
    keep = sorted({0, len(updates) - 1, *order[: SHOWN - 2]})
    return [updates[i] for i in keep]


def _size(update: WeightUpdate) -> float:
    return max(
        (abs(update.new[t] / old - 1.0) for t, old in update.old.items() if old), default=0.0
    )


def _update(update: WeightUpdate) -> Html:
    moves = [_move(task, old, update.new[task]) for task, old in update.old.items()]
    changed: list[object] = [move for move in moves if move] or ["no weight moved"]
    head = tag("summary", tag("b", f"step {update.step}"), " ", *_spaced(changed))
    causes = list(update.causes)
    heads = ["task", "weight", "mean loss", "relative", "rows", *causes, "note"]
    lines = [
        [
            task,
            f"{old:.3f} → {update.new[task]:.3f}",
            number(update.mean_losses.get(task)),
            number(update.relative_losses.get(task)),
            str(update.counts.get(task, 0)),
            *(number(update.causes[name].get(task), 4) for name in causes),
            update.notes.get(task, ""),
        ]
        for task, old in update.old.items()
    ]
    reason = tag("p", update.reason, cls="note")
    return tag("details", head, reason, table(heads, lines), cls="update")


def _move(task: str, old: float, new: float) -> Html | None:
    if abs(new - old) < MOVED * max(abs(old), 1e-9):
        return None
    up = new > old
    return tag("span", f"{task} {new:.3f} {'↑' if up else '↓'}", cls="good" if up else "bad")


def _spaced(parts: Sequence[object]) -> list[object]:
    spaced: list[object] = [parts[0]]
    for _, part in pairwise(parts):
        spaced += [" · ", part]
    return spaced
