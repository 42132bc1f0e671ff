"""The run on one line: phases, shares of the tasks, and what happened when."""

import numpy as np

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
    shares = curriculum.share_table(start, stop)  # (S, T)
    steps = _steps(start, stop, run.switches)
    series = {
        task: Series(steps, shares[np.array(steps) - start, i].tolist())
        for i, task in enumerate(curriculum.tasks)
    }
    phases = [p for p in curriculum.phases if p.stop > start]
    told = "; ".join(f"{p.name} from step {max(p.start, start)} to {p.stop}" for p in phases)
    note = f"Target shares of each step's rows: {told}."
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
