"""The page of one run."""

from polyqwen.reporting.report.charts import Charts
from polyqwen.reporting.report.document import Section, document
from polyqwen.reporting.report.run_files import RunFiles
from polyqwen.reporting.report.sections.conflicts import conflicts
from polyqwen.reporting.report.sections.curriculum import timeline
from polyqwen.reporting.report.sections.gallery import examples, failures
from polyqwen.reporting.report.sections.health import health
from polyqwen.reporting.report.sections.results import results
from polyqwen.reporting.report.sections.settings import configuration, environment
from polyqwen.reporting.report.sections.summary import summary
from polyqwen.reporting.report.sections.training import losses, schedules, space, validation
from polyqwen.reporting.report.sections.weights import weights
from polyqwen.reporting.style import task_colours


def run_page(run: RunFiles) -> str:
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
