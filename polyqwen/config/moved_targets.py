"""Where classes and functions lie that saved configurations know by an earlier path.

A run's ``config.yaml``, the settings in a checkpoint's sidecar and an export's ``run_config.yaml``
outlive the module names in them: `with_current_targets` is applied wherever they are read. Whoever
moves or renames what a ``_target_`` may name adds a line to `MOVED`.
"""

from collections.abc import Mapping
from typing import Any

# earlier dotted path -> today's: of a package, a module, or a class; the longest match counts
MOVED = {
    "polyqwen.callbacks": "polyqwen.training.callbacks",
    "polyqwen.callbacks.conflicts": "polyqwen.tensorboard.gradient_conflicts",
    "polyqwen.callbacks.dashboard": "polyqwen.tensorboard.dashboard",
    "polyqwen.callbacks.galleries": "polyqwen.tensorboard.galleries",
    "polyqwen.callbacks.histograms": "polyqwen.tensorboard.similarity_histograms",
    "polyqwen.callbacks.keep_best": "polyqwen.checkpoints.callbacks.keep",
    "polyqwen.callbacks.keep_last": "polyqwen.checkpoints.callbacks.keep",
    "polyqwen.callbacks.nonfinite": "polyqwen.training.callbacks.nonfinite_guard",
    "polyqwen.callbacks.progress": "polyqwen.training.callbacks.step_log",
    "polyqwen.callbacks.projector": "polyqwen.tensorboard.projector",
    "polyqwen.callbacks.sampling_update": "polyqwen.training.callbacks.task_balance",
    "polyqwen.callbacks.schedules.LossSchedule": (
        "polyqwen.training.callbacks.schedules.LossWarmup"
    ),
    "polyqwen.callbacks.throughput": "polyqwen.training.callbacks.timing",
    "polyqwen.callbacks.wandb_logger": "polyqwen.tensorboard.wandb_logger",
    "polyqwen.callbacks.weight_update": "polyqwen.training.callbacks.task_balance",
    "polyqwen.cli.report.sweep_end": "polyqwen.app.report_after_sweep",
    "polyqwen.cli.study.plan": "polyqwen.app.study.plan",
    "polyqwen.data.adaptive_sampling": "polyqwen.data.sampling.shares",
    "polyqwen.data.curriculum": "polyqwen.data.sampling.curriculum",
    "polyqwen.data.sampling.BySize": "polyqwen.data.sampling.shares.BySize",
    "polyqwen.data.sampling.RoundRobin": "polyqwen.data.sampling.shares.RoundRobin",
    "polyqwen.data.sampling.Shares": "polyqwen.data.sampling.shares.Shares",
    "polyqwen.data.sources": "polyqwen.data.rows.sources",
    "polyqwen.data.staged": "polyqwen.data.sampling.curriculum",
    "polyqwen.data.task": "polyqwen.data.rows.task",
    "polyqwen.losses.library": "polyqwen.losses.candidates",
    "polyqwen.models.large_batch": "polyqwen.models.memory.large_batch",
    "polyqwen.models.sharing": "polyqwen.models.tuning.sharing",
    "polyqwen.optimization": "polyqwen.training.optimizer",
    "polyqwen.schedules": "polyqwen.training.schedules",
}

SCHEDULES = "polyqwen.training.callbacks.schedules"
FLAT_SCHEDULES = {  # callback -> keys that it takes of its former inner schedule
    f"{SCHEDULES}.LossWarmup": ("start", "steps"),
    f"{SCHEDULES}.GradientClipSchedule": ("start", "end", "steps"),
}


def current_target(target: str) -> str:
    """Today's path of a target; the same if it never moved."""
    parts = target.split(".")
    for end in range(len(parts), 1, -1):
        moved = MOVED.get(".".join(parts[:end]))
        if moved is not None:
            return ".".join([moved, *parts[end:]])
    return target


def _with_flat_schedule(node: dict[Any, Any]) -> dict[Any, Any]:
    """A schedule's start, end and steps in the callback's own keys; once it was an inner node."""
    schedule = node.get("schedule")
    taken = FLAT_SCHEDULES.get(node.get("_target_", ""))
    if taken is None or not isinstance(schedule, Mapping):
        return node
    own = {key: value for key, value in node.items() if key != "schedule"}
    return own | {key: schedule[key] for key in taken if key in schedule}


def with_current_targets(value: Any) -> Any:
    """A copy of plain containers in which every ``_target_`` has today's path.

    Args:
        value: a configuration as nested mappings and lists, or one level of dotted keys, as
            checkpoints keep it (``losses.ocr._target_``).
    """
    if isinstance(value, Mapping):
        return _with_flat_schedule(
            {
                key: current_target(inner)
                if isinstance(inner, str) and str(key).rpartition(".")[2] == "_target_"
                else with_current_targets(inner)
                for key, inner in value.items()
            }
        )
    return [with_current_targets(item) for item in value] if isinstance(value, list) else value
