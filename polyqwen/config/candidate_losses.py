"""What a run minimises: each task's own loss and, with a library, its candidate losses."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from polyqwen.config.errors import ConfigError, suggest

LIBRARY = "library"  # a group that is there only when one is chosen
VECTORS = {"teacher_query", "teacher_document"}  # fields of a task


class Further(NamedTuple):
    """A loss beside a task's own: the task whose pairs it reads, and its name in the library."""

    task: str
    candidate: str


def further_losses(values: Mapping[str, Any]) -> dict[str, Further]:
    """Candidates by their name as losses: ``cosent``, or ``ocr_cosent`` with several tasks.

    One that needs a teacher's vectors trains the tasks that have some, one that needs given
    negatives the tasks that read them.

    Args:
        values: a configuration; ``library_tasks`` are all tasks with pairs if it is empty.

    Raises:
        ConfigError: ``library_tasks`` names what is no task with pairs, no task has the vectors
            that a candidate needs, or two losses of the run would have one name.
    """
    library = [name for name, node in (values.get(LIBRARY) or {}).items() if node is not None]
    paired = [name for name, node in values["tasks"].items() if _paired(node)]
    for name in values.get("library_tasks") or ():
        if name not in paired:
            raise ConfigError(
                "library_tasks", f"{name!r} is no task with pairs", suggest(name, paired)
            )
    tasks = list(values.get("library_tasks") or paired)  # runs of before have no such key
    trained = {name: _trained(values, name, tasks) for name in library}
    further: dict[str, Further] = {}
    for task in tasks:
        for candidate in (name for name in library if task in trained[name]):
            name = str(candidate) if len(trained[candidate]) == 1 else f"{task}_{candidate}"
            if name in values["tasks"]:
                raise ConfigError(f"{LIBRARY}.{candidate}", "a task has this name; choose another")
            further[name] = Further(task, str(candidate))
    return further


def _trained(values: Mapping[str, Any], candidate: str, tasks: Sequence[str]) -> list[str]:
    """Which of the tasks a candidate trains."""
    needs = values[LIBRARY][candidate]["needs"]
    if needs == "negatives":  # given ones, which some tasks leave out
        return [t for t in tasks if values["tasks"][t].get("negatives_from") != "batch"]
    if needs != "vectors":
        return list(tasks)
    found = [task for task in tasks if VECTORS & set(values["tasks"][task]["fields"])]
    if tasks and not found:
        raise ConfigError(
            f"{LIBRARY}.{candidate}",
            "needs a teacher's vectors, and no task has a column of them",
            f"add +tasks.{tasks[0]}.fields.teacher_query=COLUMN",
        )
    return found


def _paired(task: Mapping[str, Any]) -> bool:
    return any(field == "turns" or str(field).startswith("document") for field in task["fields"])
