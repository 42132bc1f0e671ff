"""The page of one run."""

from polyqwen.report.figure_style import task_colours
from polyqwen.report.page.charts import Charts
from polyqwen.report.page.document import Section, document
from polyqwen.report.sections.conflicts import conflicts
from polyqwen.report.sections.curriculum import timeline
from polyqwen.report.sections.gallery import examples, failures
from polyqwen.report.sections.health import health
from polyqwen.report.sections.results import results
from polyqwen.report.sections.settings import configuration, environment
from polyqwen.report.sections.summary import summary
from polyqwen.report.sections.training import losses, schedules, space, validation
from polyqwen.report.sections.weights import weights
from polyqwen.runs.run_folder import RunFolder


def run_page(run: RunFolder) -> str:
    """The whole page, a file of its own: nothing is fetched when it is opened."""
    colours = task_colours(run.tasks)
    charts = Charts({task: colours[task] for task in run.tasks}, run.switches)
    sections = [
        Section("Results", results(run)),
        Section("Curriculum", timeline(run, charts)),
        Section("Losses", losses(run, charts)),
        Section("Weights", weights(run, charts)),
        Section("Conflicts", conflicts(run, charts)),
        Section("Validation", validation(run, charts)),
        Section("Space", space(run, charts)),
        Section("Failures", failures(run)),
        Section("Examples", examples(run)),
        Section("Speed and health", health(run, charts)),
        Section("Schedules", schedules(run, charts)),
        Section("Configuration", configuration(run)),
        Section("Environment", environment(run)),
    ]
    return document(f"{run.name} · polyqwen", summary(run), sections, charts.specs)
