"""The run on one line: phases, shares of the tasks, and what happened when."""

import numpy as np

from polyqwen.data.sampling.curriculum import Curriculum
from polyqwen.report.page.charts import Chart, Charts, Lane
from polyqwen.runs.history import Series, by_task
from polyqwen.runs.run_folder import RunFolder

POINTS = 300
BLUE, GREY, RED, AMBER = "#0072B2", "#8A94A3", "#D62728", "#B8860B"


def timeline(run: RunFolder, charts: Charts) -> Chart | None:
    """Shares of a step's rows over the run, phases named, events below."""
    curriculum = run.curriculum
    if curriculum is None:
        return None
    start, stop = curriculum.start_step, curriculum.total_steps
    series, what = _drawn_shares(run, stop), "Shares"
    if series is None:
        series, what = _target_shares(curriculum, run.switches), "Target shares"
    phases = [p for p in curriculum.phases if p.stop > start]
    told = "; ".join(f"{p.name} from step {max(p.start, start)} to {p.stop}" for p in phases)
    note = f"{what} of each step's rows: {told}."
    return charts.lines(
        "Shares of the tasks over the run",
        series,
        note,
        stack=True,
        wide=True,
        legend=True,
        bands=[[p.name, max(p.start, start), p.stop] for p in phases],
        lanes=_lanes(run, start, stop),
    )


def _drawn_shares(run: RunFolder, stop: int) -> dict[str, Series] | None:
    """Of the rows that the plan says are drawn up to a step; None for a run without one."""
    try:
        curve = run.plan["shares"]
        steps = [int(step) for step in curve["steps"]]
        ends = [*(step - 1 for step in steps[1:]), stop - 1]
        # twice where windows are wider than a step, so that a switch is drawn upright
        at = [step for pair in zip(steps, ends, strict=True) for step in dict.fromkeys(pair)]
        found = {}
        for task, shares in curve["shares"].items():
            pairs = zip(steps, ends, shares, strict=True)
            values = [float(s) for a, b, s in pairs for _ in dict.fromkeys((a, b))]
            found[str(task)] = Series(at, values)
        return found
    except (KeyError, TypeError, ValueError, IndexError, AttributeError):
        return None


def _target_shares(curriculum: Curriculum, switches: list[int]) -> dict[str, Series]:
    """Of a mixed batch, as the curriculum has them: rows of their own are not in them."""
    start, stop = curriculum.start_step, curriculum.total_steps
    shares = curriculum.share_table(start, stop)  # (S, T)
    steps = _steps(start, stop, switches)
    return {
        task: Series(steps, shares[np.array(steps) - start, i].tolist())
        for i, task in enumerate(curriculum.tasks)
    }


def _steps(start: int, stop: int, switches: list[int]) -> list[int]:
    """Evenly spread, and on both sides of every switch so that it is drawn upright."""
    even = np.linspace(start, stop - 1, min(POINTS, stop - start)).astype(int).tolist()
    edges = [step for switch in switches for step in (switch - 1, switch)]
    return sorted({*even, *(s for s in edges if start <= s < stop)})


def _lanes(run: RunFolder, start: int, stop: int) -> list[Lane]:
    boosted = [s for s in by_task(run.history, "schedule").items() if s[0].startswith("boost")]
    lanes = [
        Lane(name.replace("_", " "), spans=_away_from_rest(series, 1.0), colour=AMBER)
        for name, series in boosted
    ]
    warmup = run.settings.get("schedule_steps")
    if isinstance(warmup, int) and warmup > start:
        lanes.append(Lane("warmups", spans=[(start, min(warmup, stop))], colour=AMBER))
    validations = sorted({s for k, v in run.history.items() if k.startswith("val/") for s in v[0]})
    lanes.append(Lane("validations", at=validations, colour=GREY))
    updates = [update.step for update in run.updates]
    lanes.append(Lane("weights moved", at=updates, colour=BLUE))
    skipped = run.history.get("train/skipped_steps")
    lanes.append(Lane("skipped", at=skipped.steps if skipped else [], colour=RED))
    return [lane for lane in lanes if lane.at or lane.spans]


def _away_from_rest(series: Series, rest: float) -> list[tuple[float, float]]:
    """The stretches in which a value is not what it is most of the time."""
    spans: list[tuple[float, float]] = []
    begun: int | None = None
    for step, value in zip(series.steps, series.values, strict=True):
        if value != rest and begun is None:
            begun = step
        elif value == rest and begun is not None:
            spans.append((begun, step))
            begun = None
    return spans + ([(begun, series.steps[-1])] if begun is not None else [])
