"""The top of the page: what was trained, how it ended."""

from polyqwen.report.page.markup import Html, tag
from polyqwen.report.sections.results import mean_score
from polyqwen.runs.run_folder import RunFolder


def summary(run: RunFolder) -> list[Html]:
    """Title, one sentence, tiles of the figures one looks for first."""
    model, weighting = (class_of(run, key) for key in ("model.encoder", "weighting"))
    parts = [f"{len(run.tasks)} tasks: {', '.join(run.tasks)}", model, weighting]
    parts += [f"seed {run.settings.get('seed')}"]
    head = [tag("h1", run.name), tag("p", " · ".join(filter(None, parts)), cls="note")]
    if not run.results:
        text = "This run has no results.json: it is going on, or it was interrupted."
        head.append(tag("p", text, cls="warning"))
    tiles = [_tile(value, name) for name, value in _figures(run).items() if value]
    return [*head, tag("div", *tiles, cls="tiles")]


def _tile(value: str, name: str) -> Html:
    return tag("div", tag("b", value), tag("span", name), cls="tile")


def _figures(run: RunFolder) -> dict[str, str]:
    timing = run.results.get("timing") or {}
    score, before = (mean_score(run, of) for of in ("trained", "untrained"))
    rows, step = run.last("throughput/rows_per_second"), timing.get("seconds_per_step")
    skipped = run.last("train/skipped_steps")
    last = max((series.steps[-1] for series in run.history.values()), default=0)
    return {
        "test score, mean of tasks": "" if score is None else f"{score:.3f}",
        "the same before training": "" if before is None else f"{before:.3f}",
        "optimizer steps": f"{last:,}" if last else "",
        "time to fit": duration(timing["fit_seconds"]) if timing.get("fit_seconds") else "",
        "median step": f"{1000 * step:,.0f} ms" if step else "",
        "rows per second, at the end": f"{rows:,.0f}" if rows else "",
        "skipped steps": f"{int(skipped or 0)}",
    }


def class_of(run: RunFolder, key: str) -> str:
    """The class that a node of the configuration makes; empty where it names none."""
    parts = str(run.settings.get(f"{key}._target_", "")).split(".")
    return next((part for part in parts if part[:1].isupper()), "")


def duration(seconds: float) -> str:
    """Such as 48 s, 3 min 20 s, 5 h 12 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
