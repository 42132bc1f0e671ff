"""Rules that tell which keys have no effect with the other choices of a configuration."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from polyqwen.config.candidate_losses import LIBRARY, further_losses
from polyqwen.config.signatures import class_constant

# keys of the primary file that other files refer to, and nothing else reads
REFERRED = {
    "total_steps": "curriculum.total_steps is given, or follows phase1_steps: give that",
    "phase1_steps": "curriculum.switch_step is given",
    "shares_over": "the curriculum has no second phase of its own shares",
    "schedule_steps": "no warm-up is left",
    "eval_steps": "nothing follows it; add eval=tied",
}


class Composed(NamedTuple):
    """A configuration as the rules look at it.

    Attributes:
        values: resolved.
        raw: flat, by dotted key, with ``${…}`` as written.
        given: keys of the command line.
        dropped: nodes of tasks that take no part, see `drop_absent_tasks`.
    """

    values: Mapping[str, Any]
    raw: Mapping[str, Any]
    given: Sequence[str]
    dropped: Sequence[str]


# (configuration, key) -> why the key has no effect; None where it has one
Rule = Callable[[Composed, str], str | None]


def _referred(composed: Composed, key: str) -> str | None:
    reference = re.compile(rf"\$\{{\.*{key}\}}")
    if any(reference.search(str(value)) for value in composed.raw.values()):
        return None
    return REFERRED[key]


def _phase1_steps(composed: Composed, key: str) -> str | None:
    return REFERRED[key] if "curriculum.switch_step" in composed.given else None


def _fixed_rows(composed: Composed, task: str) -> str | None:
    """The key that gives a task its number of rows, if one does."""
    if composed.values["tasks"][task].get("batch_size"):
        return f"tasks.{task}.batch_size"
    rows = composed.values["data"].get("rows_per_task")
    if isinstance(rows, dict):
        return f"data.rows_per_task.{task}" if rows.get(task) else None
    return "data.rows_per_task" if rows else None


def _share(composed: Composed, key: str) -> str | None:
    task = key.split(".")[1]
    if task not in composed.values["tasks"]:
        return None
    fixed = _fixed_rows(composed, task)
    return fixed and f"{fixed} sets the task's rows; set that to null and give data.batch_size"


def _batch_size(composed: Composed, key: str) -> str | None:
    fixed = [_fixed_rows(composed, task) for task in composed.values["tasks"]]
    if None in fixed:
        return None
    return f"every task has rows of its own ({fixed[0]}); change these, or set them to null"


def _rows_per_task(composed: Composed, key: str) -> str | None:
    task = key.split(".")[2]
    own = composed.values["tasks"].get(task, {}).get("batch_size")
    return f"tasks.{task}.batch_size={own} sets the task's rows" if own else None


def _switch(composed: Composed, key: str) -> str | None:
    if composed.values["callbacks"][key.split(".")[1]].get("switch_step") is not None:
        return None
    return "the curriculum has no switch; use curriculum=two_phase"


def _clip_end(composed: Composed, key: str) -> str | None:
    limit = composed.values["trainer"].get("gradient_clip_val")
    if limit is None or limit == composed.values["callbacks"]["gradient_clip"]["end"]:
        return None
    return f"trainer.gradient_clip_val is {limit}; give one of them"


def _absent_task(composed: Composed, key: str) -> str | None:
    node = next((n for n in composed.dropped if f"{key}.".startswith(f"{n}.")), None)
    return node and f"task {node.partition('.')[2]} takes no part in the run"


def _row_of_absent_task(composed: Composed, key: str) -> str | None:
    """A table that has rows for more tasks than a run takes, such as ``weighting.alpha``."""
    task = key.rpartition(".")[2]
    weighed = (*composed.values["tasks"], *further_losses(composed.values))
    return None if task in weighed else f"task {task} takes no part in the run"


def _static(composed: Composed, key: str) -> str | None:
    target = str(composed.values["weighting"]["_target_"])
    if class_constant(target, "uses_static") is not False:
        return None
    return f"{target.rpartition('.')[2]} sets all weights by itself; use weighting=static"


def _second_phase(composed: Composed, key: str) -> str | None:
    curriculum = composed.values["curriculum"]
    if (curriculum.get("switch_step") or 0) >= curriculum["total_steps"]:
        return "the run ends with its first phase"
    return _batch_size(composed, key) if key.endswith("shares_over") else None


def _visual_tokens(composed: Composed, key: str) -> str | None:
    node = composed.values["tasks"].get(key.split(".")[1])
    if node is None or any(field.endswith("_image") for field in node["fields"]):
        return None
    return "the task's rows have no pictures"


def _library_tasks(composed: Composed, key: str) -> str | None:
    return None if composed.values.get(LIBRARY) else "library=none has no losses; choose a library"


def _resume_allow(composed: Composed, key: str) -> str | None:
    off = composed.values["resume"] == "off" and composed.values["ckpt_path"] is None
    return "nothing is resumed; add resume=auto" if off else None


def _beside(name: str, read: Callable[[Any], Any], reason: str) -> Rule:
    """A key that is read only if the one beside it has certain values."""

    def rule(composed: Composed, key: str) -> str | None:
        node: Any = composed.values
        for part in key.split(".")[:-1]:
            node = node.get(part, {})
        value = node.get(name)
        return None if value is None or read(value) else f"{reason}, and {name} is {value}"

    return rule


RULES: tuple[tuple[str, Rule], ...] = (  # pattern of keys, rule
    ("|".join(REFERRED), _referred),
    ("phase1_steps", _phase1_steps),
    (r"(tasks|losses|metrics)\..*", _absent_task),
    (r"tasks\.\w+\.share", _share),
    (r"data\.batch_size", _batch_size),
    (r"data\.rows_per_task\.\w+", _rows_per_task),
    (
        r"losses\.\w+\.score_threshold",
        _beside("score_gate", "threshold".__eq__, "score_gate=threshold reads it"),
    ),
    (r"(data\.rows_per_task|weighting\.alpha)\.\w+", _row_of_absent_task),
    (r"weighting\.static\.\w+", _static),
    (r"tasks\.\w+\.visual_tokens", _visual_tokens),
    (r"(curriculum\.)?shares_over|curriculum\.ramp_steps", _second_phase),
    ("library_tasks", _library_tasks),
    ("resume_allow", _resume_allow),
    (r"losses\.\w+\.rank_margin", _beside("rank_weight", bool, "it belongs to the rank term")),
    (r"losses\.\w+\.margin", _beside("triplet_weight", bool, "it belongs to the triplet term")),
    (
        r"losses\.\w+\.contrast_temperature",
        _beside("contrast_weight", bool, "it belongs to the contrast term"),
    ),
    (r"data\.max_bad_share", _beside("bad_rows", "skip".__eq__, "bad_rows=skip reads it")),
    (
        r"weighting\.calibration_steps",
        _beside("fallback", "calibrated".__eq__, "fallback=calibrated reads it"),
    ),
    (r"weighting\.scale", _beside("normalize", "none".__eq__, "weights are scaled to their sum")),
    (r"weighting\.beta\.tasks", _beside("mode", "alpha".__eq__, "mode=alpha reads it")),
    (r"large_batch\.memory_gb", _beside("mode", "auto".__eq__, "mode=auto reads it")),
    (r"large_batch\.visual_(gb|patches)", _beside("mode", "off".__ne__, "other modes read it")),
    (r"callbacks\.(boost|forgetting)\.(factor|boost_steps|shape|task|metric)", _switch),
    (r"callbacks\.gradient_clip\.end|trainer\.gradient_clip_val", _clip_end),
)
