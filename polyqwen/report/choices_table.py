"""Which losses or tasks a weighting chose, as a table with reasons."""

import math
from pathlib import Path
from typing import NamedTuple

from polyqwen.runs.history import Series, by_task, read_history

HEADINGS = ("Loss", "Share: first", "mean", "last", "Chosen", "Agreement", "Off", "Why")
Z = 1.64  # standard errors, as in the weighting's own test


class Choices(NamedTuple):
    """What a weighting logged of its choices, loss -> series; ``weighting/<name>/<loss>``."""

    share: dict[str, Series]
    agreement: dict[str, Series]
    active: dict[str, Series]
    evidence: dict[str, Series]
    evidence_error: dict[str, Series]


def read_choices(csv_path: Path) -> Choices:
    """Reads what strategies that look at trusted rows log.

    Raises:
        ValueError: the run logged no shares.
    """
    history = read_history(csv_path)
    choices = Choices(*(by_task(history, f"weighting/{name}") for name in Choices._fields))
    if not choices.share:
        raise ValueError(
            f"{csv_path} has no weighting/share/…; the run's weighting must choose by trusted rows"
        )
    return choices


def choices_table(choices: Choices) -> str:
    """Markdown: a line for each loss, largest mean share first, then every switch."""
    losses = sorted(choices.share, key=lambda loss: -mean_of(choices.share[loss]))
    lines = [_line(HEADINGS), "|:--|--:|--:|--:|--:|--:|--:|:--|"]
    lines += [_line(_summary(choices, loss)) for loss in losses]
    events = sorted(event for loss in losses for event in _switches(choices, loss))
    if events:
        lines += ["", _line(("Step", "Loss", "Switched", "Evidence")), "|--:|:--|:--|:--|"]
        lines += [_line((str(step), *told)) for step, *told in events]
    return "\n".join(lines) + "\n"


def _summary(choices: Choices, loss: str) -> tuple[str, ...]:
    share, agreement = choices.share[loss], choices.agreement.get(loss)
    active = choices.active.get(loss)
    chosen = sum(value > 0.0 for value in share.values) / len(share.values)
    off = 0.0 if active is None else sum(v == 0.0 for v in active.values) / len(active.values)
    mean = math.nan if agreement is None else mean_of(agreement)
    shown = [
        f"{100 * v:.0f} %" for v in (share.values[0], mean_of(share), share.values[-1], chosen)
    ]
    return loss, *shown, f"{mean:+.2f}", f"{100 * off:.0f} %", _why(choices, loss, mean, off)


def _why(choices: Choices, loss: str, mean: float, off: float) -> str:
    """The plainest reading of the numbers; a rank says where the loss stands among the others."""
    if off > 0.5:
        return "off most of the time: its gradient points against the trusted rows"
    means = [mean_of(series) for series in choices.agreement.values()]
    rank = 1 + sum(value > mean for value in means)
    found = f"agreement ranks {rank} of {len(means)}"
    if mean <= 0.0:
        return f"{found}, not positive" + ("; off for a while" if off else "")
    more = mean_of(choices.share[loss]) >= 1.0 / len(choices.share)
    return f"{'more' if more else 'less'} than an equal share; {found}"


def _switches(choices: Choices, loss: str) -> list[tuple[int, str, str, str]]:
    """(step, loss, off or on, evidence) whenever ``active`` changes between two logged steps."""
    active = choices.active.get(loss)
    if active is None:
        return []
    found, before, since = [], 1.0, "–"
    for step, now in zip(active.steps, active.values, strict=True):
        if now != before:
            found.append((step, loss, "on again" if now else "off", since))
        before, since = now, _evidence(choices, loss, step)
    return found


def _evidence(choices: Choices, loss: str, step: int) -> str:
    """As it stood at a step, before a switch makes the weighting forget it."""
    values = []
    for table in (choices.evidence, choices.evidence_error):
        series = table.get(loss, Series([], []))
        values.append(dict(zip(series.steps, series.values, strict=True)).get(step))
    if values[0] is None or values[1] is None:
        return "–"
    return f"mean agreement {values[0]:+.3f} ± {Z * values[1]:.3f}"


def mean_of(series: Series) -> float:
    """Mean of what is known, NaN if nothing is."""
    known = [value for value in series.values if not math.isnan(value)]
    return sum(known) / len(known) if known else math.nan


def _line(cells: tuple[str, ...]) -> str:
    return "| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |"
