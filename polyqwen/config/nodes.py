"""Nodes with ``_target_``: what they may call, and with which keys."""

import ast
import logging
from collections.abc import Mapping
from typing import Any

from polyqwen.config.added_arguments import NOTHING, added_to
from polyqwen.config.annotations import ANY, Annotation, Built, check_value, read_annotation
from polyqwen.config.errors import ConfigError, suggest
from polyqwen.config.moved_targets import current_target
from polyqwen.config.nested import entries
from polyqwen.config.signatures import (
    Function,
    NoSuchTarget,
    NotStatic,
    Parameter,
    Signature,
    signature_of,
    walk,
)

log = logging.getLogger(__name__)
HYDRA_KEYS = ("_target_", "_partial_")
EXTRA = {"trainer.precision": "auto"}  # values that the build replaces
ROOMS = (  # any class of theirs
    "checkpoints.callbacks",
    "data",
    "losses",
    "metrics",
    "models",
    "tensorboard",
    "training.callbacks",
    "weighting",
)
MAKERS = ("from_config", "from_pretrained")  # class methods that make an object of the class
FUNCTIONS = (  # modules whose functions make a part, or are one
    "polyqwen.data.sampling.curriculum",
    "polyqwen.training.optimizer",
    "polyqwen.training.schedules",
)
SINGLE = ("polyqwen.app.study.plan.Study",)
STANDARD = ("datetime.timedelta",)  # the type of Lightning's time limits
CALLBACKS = (  # of Lightning
    *("DeviceStatsMonitor", "EMAWeightAveraging", "EarlyStopping", "LearningRateMonitor"),
    *("ModelCheckpoint", "ModelSummary", "RichModelSummary", "RichProgressBar"),
    *("StochasticWeightAveraging", "TQDMProgressBar", "ThroughputMonitor", "Timer"),
    "WeightAveraging",
)
LIGHTNING = (
    "lightning.pytorch.Trainer",
    *(f"lightning.pytorch.callbacks.{name}" for name in CALLBACKS),
    *(f"lightning.pytorch.loggers.{name}Logger" for name in ("CSV", "TensorBoard")),
    *(f"lightning.pytorch.profilers.{n}Profiler" for n in ("Advanced", "PyTorch", "Simple")),
)
ALLOWED = (
    "targets are public classes under "
    f"polyqwen.* ({', '.join(ROOMS)}), named where they are defined, schedules, and Lightning's "
    "trainer, callbacks and local loggers"
)


class NotAllowed(ValueError):
    """A target that may not be named, whether it exists or not."""


def allowed_signature(target: str) -> Signature | None:
    """The signature of a target that may be named; None for one outside the files that are read.

    A name that a module imports is not the module's own, so no detour leads to other packages.

    Raises:
        NotAllowed: it may not be named.
        NoSuchTarget: it might, but is not there.
        NotStatic: it is there, and its signature cannot be read.
    """
    if target in STANDARD:
        return None
    if target in LIGHTNING:
        return signature_of(target)
    top = target.partition(".")[0]
    if top == "lightning":
        raise NotAllowed(f"{target} is not allowed; {suggest(target, LIGHTNING)}")
    if top != "polyqwen" or any(part.startswith("_") for part in target.split(".")):
        raise NotAllowed(f"{target} is not allowed; {ALLOWED}")
    found, owner = walk(target)
    named = owner or found
    own = f"{owner.path}.{found.name}" if owner else found.path
    if own != target:
        raise NotAllowed(f"{target} stands for {own}, which is not allowed as a target; {ALLOWED}")
    if not _of_an_open_kind(target, named.node, named.module, found.name if owner else None):
        raise NotAllowed(f"{target} is not allowed; {ALLOWED}")
    return signature_of(target)


def _of_an_open_kind(target: str, node: ast.AST | None, module: str, method: str | None) -> bool:
    if target in SINGLE:
        return True
    if isinstance(node, Function):
        return module in FUNCTIONS
    in_a_room = any(module.startswith(f"polyqwen.{room}.") for room in ROOMS)
    return (
        isinstance(node, ast.ClassDef)
        and (in_a_room or module in FUNCTIONS)
        and (method is None or method in MAKERS)
    )


def check_nodes(values: Mapping[str, Any]) -> None:
    """Checks every node with ``_target_`` in a resolved configuration: Hydra builds them all.

    Raises:
        ConfigError: a target is not allowed or not there, a key is unknown, missing or given by
            the build, or a value does not fit its annotation.
    """
    for path, _, value in entries(values):
        if isinstance(value, Mapping) and "_target_" in value:
            _check_node(value, path)


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
    taken = dict(list(signature.parameters.items())[len(added.positional) :])
    given = added.keywords + added.optional
    keys = [key for key in node if key not in HYDRA_KEYS]
    for key in keys:
        where = f"{path}.{key}"
        if key in given:
            raise ConfigError(where, "is set by the run", added.hint)
        if key in taken:
            _check_argument(node[key], taken[key], where)
        elif not signature.open:
            raise ConfigError(where, f"unknown key of {node['_target_']}", suggest(key, taken))
    if added is NOTHING and node.get("_partial_"):
        return  # who calls it is not known, nor with what
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


def _check_argument(value: Any, parameter: Parameter, where: str) -> None:
    kinds = read_annotation(parameter.annotation, parameter.module) or ANY
    if where in EXTRA:
        kinds = (*kinds, Annotation("literal", value=EXTRA[where]))
    check_value(_with_built(value), kinds, where)


def _with_built(value: Any) -> Any:
    """The value with inner nodes replaced by what stands for their objects."""
    if isinstance(value, Mapping):
        if "_target_" in value:
            return Built(str(value["_target_"]))
        return {key: _with_built(inner) for key, inner in value.items()}
    return [_with_built(item) for item in value] if isinstance(value, list) else value
