"""Nodes of a configuration to objects, with the arguments that the rest of the run adds."""

import inspect
from collections.abc import Mapping
from typing import Any

from hydra.utils import get_object, instantiate

from polyqwen.config.added_arguments import added_to
from polyqwen.config.candidate_losses import LIBRARY, further_losses


def make(node: Any, *args: Any, **kwargs: Any) -> Any:
    """`instantiate` with plain lists and dicts: no class of ours ever sees a configuration."""
    return instantiate(node, *args, _convert_="all", **kwargs)


def make_part(path: str, node: Any, **values: Any) -> Any:
    """The object of the node at a dotted path.

    Args:
        path: where the node lies, as in `polyqwen.config.added_arguments`.
        node: with ``_target_`` and its own keys.
        values: the arguments added to nodes there, by name, and any that replace its keys.
    """
    added = added_to(path)
    args = [values.pop(name) for name in added.positional if name in values]
    left_out = {name for name in added.optional if not takes(node["_target_"], name)}
    return make(node, *args, **{key: value for key, value in values.items() if key not in left_out})


def takes(target: str, name: str) -> bool:
    """Whether a class or function has a parameter of this name."""
    return name in inspect.signature(get_object(target)).parameters


def weighting_node(values: Mapping[str, Any]) -> dict[str, Any]:
    """The weighting's node, with what it needs to know of candidate losses.

    They start from their task's static weight, or the one given for them in ``weighting.static``.
    A strategy with ``families`` gets those of the library, and one with an ``anchor`` takes the
    first task's own loss where none is named.
    """
    node, further = values["weighting"], further_losses(values)
    if not further:
        return dict(node)
    added: dict[str, Any] = {}
    static = dict(node["static"])
    own = {name: weight for name, weight in static.items() if name in values["tasks"]}
    added["static"] = own | {name: static.get(name, own[f.task]) for name, f in further.items()}
    if takes(node["_target_"], "families"):
        library = values[LIBRARY]
        families = {name: library[f.candidate]["family"] for name, f in further.items()}
        added["families"] = families | dict(node.get("families") or {})
    if takes(node["_target_"], "anchor") and node.get("anchor") is None:
        added["anchor"] = next(iter(further.values())).task
    return {**node, **added}
