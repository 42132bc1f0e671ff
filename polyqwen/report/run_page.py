"""The page of one run: its sections in order, the top, the configuration, and the machine."""

from typing import Any

from polyqwen.metrics.gap_reference import HIGH, LOW
from polyqwen.report.figure_style import task_colours
from polyqwen.report.format_values import duration, is_number, yaml_text
from polyqwen.report.page.charts import Charts
from polyqwen.report.page.render import render_page
from polyqwen.report.sections.curriculum import timeline
from polyqwen.report.sections.plan import plan
from polyqwen.report.sections.results import gallery, results
from polyqwen.report.sections.training import health, losses, schedules, space, validation
from polyqwen.report.sections.weights import conflicts, weights
from polyqwen.runs.run_folder import RunFolder

REFERENCE_COLOUR = "#9aa0a8"  # of what was not measured here


def run_page(run: RunFolder) -> str:
    """The whole page, a file of its own: nothing is fetched when it is opened."""
    colours = task_colours(run.tasks)
    grey = dict.fromkeys((LOW, HIGH), REFERENCE_COLOUR)
    charts = Charts({task: colours[task] for task in run.tasks} | grey, run.switches)
    sections = {
        "Results": results(run),
        "Plan": plan(run),
        "Curriculum": timeline(run, charts),
        "Losses": losses(run, charts),
        "Weights": weights(run, charts),
        "Conflicts": conflicts(run, charts),
        "Validation": validation(run, charts),
        "Space": space(run, charts),
        "Failures": gallery(run, "hardest"),
        "Examples": gallery(run, "spread"),
        "Speed and health": health(run, charts),
        "Schedules": schedules(run, charts),
        "Configuration": configuration(run),
        "Environment": environment(run),
    }
    title = f"{run.name} · polyqwen"
    return render_page("run.html.j2", title, sections, charts, run=run, summary=summary(run))


def summary(run: RunFolder) -> dict[str, Any]:
    """One sentence, tiles of the figures one looks for first, and the weighting's class."""
    model, weighting = (_class_of(run, key) for key in ("model.encoder", "weighting"))
    parts = [f"{len(run.tasks)} tasks: {', '.join(run.tasks)}", model, weighting]
    parts += [f"seed {run.settings.get('seed')}"]
    tiles = {name: value for name, value in _figures(run).items() if value}
    return {"note": " · ".join(filter(None, parts)), "tiles": tiles, "strategy": weighting}


def _figures(run: RunFolder) -> dict[str, str]:
    trained, untrained = (run.score(run.tested_tasks, of) for of in ("trained", "untrained"))
    rows, step = run.last("throughput/rows_per_second"), run.timing.get("seconds_per_step")
    skipped, dropped = run.last("train/skipped_steps"), run.last("train/dropped_micro_batches")
    last = max((series.steps[-1] for series in run.history.values()), default=0)
    return {
        "test score, mean of tasks": f"{trained:.3f}" if is_number(trained) else "",
        "the same before training": f"{untrained:.3f}" if is_number(untrained) else "",
        "optimizer steps": f"{last:,}" if last else "",
        "time to fit": duration(run.timing["fit_seconds"]) if run.timing.get("fit_seconds") else "",
        "median step": f"{1000 * step:,.0f} ms" if step else "",
        "rows per second, at the end": f"{rows:,.0f}" if rows else "",
        "skipped steps": f"{int(skipped or 0)}",
        "dropped micro-batches": f"{int(dropped)}" if dropped else "",
    }


def _class_of(run: RunFolder, key: str) -> str:
    """The class that a node of the configuration makes; empty where it names none."""
    parts = str(run.settings.get(f"{key}._target_", "")).split(".")
    return next((part for part in parts if part[:1].isupper()), "")


def configuration(run: RunFolder) -> dict[str, Any]:
    """Every value by its key; what the command line gave stands first and is marked."""
    given = {item.lstrip("+~").partition("=")[0] for item in run.overrides}
    keys = sorted(run.settings, key=lambda key: (key not in given, key))
    return {
        "command": f"python train.py {' '.join(run.overrides)}".strip(),
        "lines": [(key, yaml_text(run.settings[key]), key in given) for key in keys],
    }


def environment(run: RunFolder) -> list[list[str]]:
    """What trained the model, as far as it was kept."""
    return [[name, yaml_text(value)] for name, value in run.environment.items()]
