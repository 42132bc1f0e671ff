"""Nodes with ``_target_``: what they may call, and with which keys."""

import logging
from collections.abc import Mapping
from typing import Any

from polyqwen.config.added_arguments import NOTHING, Added, added_to
from polyqwen.config.errors import ConfigError, suggest
from polyqwen.config.moved_targets import current_target
from polyqwen.config.signatures import NoSuchTarget, NotStatic, Parameter, Signature
from polyqwen.config.targets import NotAllowed, allowed_signature
from polyqwen.config.values import ANY, Built, Kind, kinds_of, mismatches

log = logging.getLogger(__name__)
HYDRA_KEYS = ("_target_", "_partial_")


EXTRA = {"trainer.precision": "auto"}  # values that the build replaces


def check_nodes(values: Mapping[str, Any], path: str = "") -> None:
    """Checks every node with ``_target_`` in a resolved configuration.

    Raises:
        ConfigError: a target is not allowed or not there, a key is unknown, missing or given by
            the build, or a value does not fit its annotation.
    """
    if "_target_" in values:
        _check_node(values, path)
    for key, value in values.items():
        inner = f"{path}.{key}" if path else str(key)
        _check_inside(value, inner)


def _check_inside(value: Any, path: str) -> None:
    """Nodes however deep in mappings and lists: Hydra builds them wherever they are."""
    if isinstance(value, Mapping):
        check_nodes(value, path)
    elif isinstance(value, list | tuple):
        for i, item in enumerate(value):
            _check_inside(item, f"{path}[{i}]")


def _check_node(node: Mapping[str, Any], path: str) -> None:
    signature = _signature(node["_target_"], f"{path}._target_")
    for key in node:
        if key.startswith("_") and key not in HYDRA_KEYS:
            raise ConfigError(f"{path}.{key}", "unknown key", suggest(key, HYDRA_KEYS))
    if not isinstance(node.get("_partial_", False), bool):
        raise ConfigError(f"{path}._partial_", f"must be true or false, got {node['_partial_']!r}")
    if signature is None:
        return
    added = added_to(path)
    taken = dict(list(signature.parameters.items())[len((added or NOTHING).positional) :])
    keys = [key for key in node if key not in HYDRA_KEYS]
    for key in keys:
        _check_key(node, key, path, taken, signature, added or NOTHING)
    if added is None and node.get("_partial_"):
        return  # who calls it is not known, nor with what
    given = (added or NOTHING).keywords + (added or NOTHING).optional
    for name, parameter in taken.items():
        if parameter.required and name not in {*keys, *given}:
            raise ConfigError(f"{path}.{name}", f"is missing; {node['_target_']} needs it")


def _signature(target: Any, where: str) -> Signature | None:
    """The target's signature; None, said aloud, where it cannot be read."""
    if not isinstance(target, str):
        raise ConfigError(where, f"must be a dotted path, got {target!r}")
    try:
        return allowed_signature(target)
    except (NoSuchTarget, NotAllowed) as error:
        now = current_target(target)
        hint = "" if now == target else f"it is {now} today"
        raise ConfigError(where, str(error), hint) from error
    except NotStatic as error:
        log.warning("%s: %s; its keys are not checked before it is built", where, error)
        return None


def _check_key(
    node: Mapping[str, Any],
    key: str,
    path: str,
    taken: Mapping[str, Parameter],
    signature: Signature,
    added: Added,
) -> None:
    where = f"{path}.{key}"
    if key in added.keywords + added.optional:
        raise ConfigError(where, "is set by the run", added.hint)
    if key not in taken:
        if signature.open:
            return
        raise ConfigError(where, f"unknown key of {node['_target_']}", suggest(key, taken))
    kinds = kinds_of(taken[key].annotation, taken[key].module) or ANY
    if where in EXTRA:
        kinds = (*kinds, Kind("literal", value=EXTRA[where]))
    for place, what, way_out in mismatches(_with_built(node[key]), kinds, where):
        raise ConfigError(place, what, way_out)


def _with_built(value: Any) -> Any:
    """The value with inner nodes replaced by what stands for their objects."""
    if isinstance(value, Mapping):
        if "_target_" in value:
            return Built(str(value["_target_"]))
        return {key: _with_built(inner) for key, inner in value.items()}
    return [_with_built(item) for item in value] if isinstance(value, list) else value
