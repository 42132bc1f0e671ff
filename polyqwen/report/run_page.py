"""The page of one run."""

from polyqwen.report.figure_style import task_colours
from polyqwen.report.page.charts import Charts
from polyqwen.report.page.render import render_page
from polyqwen.report.sections.conflicts import conflicts
from polyqwen.report.sections.curriculum import timeline
from polyqwen.report.sections.results import gallery, results
from polyqwen.report.sections.settings import configuration, environment, summary
from polyqwen.report.sections.training import health, losses, schedules, space, validation
from polyqwen.report.sections.weights import weights
from polyqwen.runs.run_folder import RunFolder


def run_page(run: RunFolder) -> str:
    """The whole page, a file of its own: nothing is fetched when it is opened."""
    colours = task_colours(run.tasks)
    charts = Charts({task: colours[task] for task in run.tasks}, run.switches)
    sections = {
        "Results": results(run),
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
