"""What `LossRAG` is given: ranges, names, and who is the anchor."""

from collections.abc import Mapping, Sequence
from typing import Any

from polyqwen.losses.candidates import FAMILIES
from polyqwen.weighting.lossrag.context import CONTEXTS
from polyqwen.weighting.task_state import TaskState

AIMS = ("mean", "anchor")
check = TaskState.check


def anchor_of(static: Mapping[str, float], anchor: str | None) -> str:
    """The anchor's name: the one given, or that of the largest weight, the first by name.

    Raises:
        ValueError: it is none of the losses.
    """
    if anchor is None:
        return min(static, key=lambda name: (-static[name], name))
    names = ", ".join(static)
    check(anchor in static, "anchor", anchor, f"one of {names}, or null")
    return anchor


def families_of(
    losses: Sequence[str], families: Mapping[str, str] | None
) -> tuple[str | None, ...]:
    """Each loss's family, None where it has none.

    Raises:
        ValueError: a name that is no loss, or a family that is not known.
    """
    given = families or {}
    for name, family in given.items():
        check(name in losses, f"families.{name}", family, f"given for one of {', '.join(losses)}")
        check(family in FAMILIES, f"families.{name}", family, f"one of {', '.join(FAMILIES)}")
    return tuple(given.get(loss) for loss in losses)


def check_arguments(given: Mapping[str, Any]) -> None:
    """Raises `ValueError` for the first argument that is out of its range, by its name."""
    whole = ("total_steps", "retest_every", "credit_every")
    for name in (*whole, "top_k", "patience"):
        value = given[name]
        allowed = ">= 1" if name in whole else ">= 1, or null"
        check(value >= 1 if value is not None else name not in whole, name, value, allowed)
    for name in ("learning_rate", "scale"):
        check(given[name] > 0.0, name, given[name], "> 0")
    for name in ("entropy", "prior", "id_decay"):
        check(given[name] >= 0.0, name, given[name], ">= 0")
    check(0.0 <= given["floor"] < 1.0, "floor", given["floor"], "in [0, 1), e.g. 0.02")
    check(given["aim"] in AIMS, "aim", given["aim"], f"one of {', '.join(AIMS)}")
    kinds = ", ".join(CONTEXTS)
    check(given["context"] in CONTEXTS, "context", given["context"], f"one of {kinds}")
    alike = not given["descriptors"] and not given["ids"]
    check(not alike, "descriptors", False, "true where ids is false: all losses would look alike")
    known = given["policy_from"] is not None or not given["frozen"]
    check(known, "frozen", True, "false without policy_from: a random policy would choose")
