"""What the counts mean for a run: what would stop it, what to look at, what to know."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import Literal, NamedTuple

from polyqwen.data.rows.bad_rows import BadRows
from polyqwen.data.rows.task import Task
from polyqwen.data.validation.counts import Shared
from polyqwen.data.validation.scan import Scan

Level = Literal["stops", "warning", "note"]
MUCH_CUT = 0.05  # share of texts
Scans = Mapping[str, Scan]  # split -> what it holds


class Finding(NamedTuple):
    """One thing to tell.

    Attributes:
        level: "stops" a run, a "warning", or a "note".
        task: its task.
        split: its split, or two.
        what: in one line.
    """

    level: Level
    task: str
    split: str
    what: str

    def __str__(self) -> str:
        return f"{self.task} {self.split}: {self.what}"


def findings(name: str, tasks: Sequence[Task], scans: Scans, bad: BadRows) -> Iterator[Finding]:
    """All there is to tell of a task, or of those that read the same rows.

    Args:
        name: what to call them.
        tasks: the tasks.
        scans: their splits.
        bad: what the run does with bad rows.
    """
    for split, scan in scans.items():
        for level, what in _of_split(split, tasks, scan, bad):
            yield Finding(level, name, split, what)
    for first, second in combinations(scans, 2):
        both = f"{first}/{second}"
        pairs = scans[second].pairs.also_in(scans[first].pairs)
        if pairs.rows:
            what = f"rows of {second} that are in {first} too, query and document alike"
            places = _places(pairs, second, first)
            yield Finding("warning", name, both, f"{what}: {pairs.rows} ({places})")
        shown = scans[second].shown.also_in(scans[first].shown)
        if shown.rows:
            what = f"rows of {second} with a picture that {first} shows too: {shown.rows}"
            yield Finding("note", name, both, f"{what} ({_places(shown, second, first)})")


def _of_split(
    split: str, tasks: Sequence[Task], scan: Scan, bad: BadRows
) -> Iterator[tuple[Level, str]]:
    if scan.broken:
        yield "stops", scan.broken
    elif not scan.good:
        yield "stops", "no rows" + (" that can be used" if scan.rows else "")
    yield from _bad_rows(scan, bad)
    if split == "train" and scan.good:
        yield from _labels(tasks, scan.classes.report())
    if (again := scan.pairs.repeated()).rows:
        places = _places(again, split, split)
        yield "warning", f"rows that stood there before: {again.rows} ({places})"
    for side, lengths in scan.lengths.items():
        if lengths.cut > MUCH_CUT:
            what = f"{lengths.cut:.1%} of the {side} texts are cut at {lengths.most} tokens"
            yield "warning", f"{what}; raise model.tokens.max_tokens"
    if tasks[0].scored and scan.good > 1 and scan.scores.least == scan.scores.most:
        yield "warning", f"all scores are {scan.scores.least:g}"
    if scan.spelled:
        yield "note", f"texts that spell out a special token and stay plain text: {scan.spelled}"


def _labels(
    tasks: Sequence[Task], classes: Mapping[str, Mapping[str, int]]
) -> Iterator[tuple[Level, str]]:
    for task in tasks:
        if task.label is None:
            continue
        none = [name for name in task.classes if name not in classes.get(task.label, {})]
        if task.label not in classes:
            yield "stops", f"no row has the label {task.label!r}"
        elif none:
            yield "warning", f"no row is {', '.join(none)} (label {task.label})"


def _bad_rows(scan: Scan, bad: BadRows) -> Iterator[tuple[Level, str]]:
    count = scan.faults.kinds.total()
    if not count:
        return
    share = count / scan.rows
    skipped = bad.policy == "skip" and share <= bad.max_share
    fate = "left out" if skipped else "data.bad_rows=skip leaves them out"
    if not skipped and share > bad.max_share:
        fate = f"{share:.1%}, more than data.max_bad_share={bad.max_share:g}"
    yield "warning" if skipped else "stops", f"{count} of {scan.rows} rows are bad; {fate}"
    for kind, first in scan.faults.first.items():
        more = f" (and {scan.faults.kinds[kind] - 1} more)" if scan.faults.kinds[kind] > 1 else ""
        level: Level = "warning" if skipped else "stops"
        yield level, f"{kind}: {first[0]['where']}: {first[0]['what']}{more}"


def _places(shared: Shared, here: str, there: str) -> str:
    pairs = [f"{here} row {row} = {there} row {other}" for row, other in shared.first]
    return "; ".join(pairs) + ("; …" if shared.rows > len(pairs) else "")
