"""The keys of the primary file and the groups that it composes: exactly these, and their types."""

import ast
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from omegaconf import OmegaConf

from polyqwen.config.annotations import SCALARS, Annotation, check_value, read_annotation
from polyqwen.config.conf import CONF as CONF
from polyqwen.config.errors import ConfigError, suggest

FREE = "metadata"  # the one node in which any key is welcome
GLOBAL = (
    "experiment",
    "task",
    "hparams_search",
    "eval",
)  # groups whose files say "@package _global_"
STUDY = "study"
OPTIONAL = (STUDY, "library", "widths")  # groups that may be absent
COUNTS = ("eval_steps",)  # null, or a whole number; a null of the file else stands for a path
BY_TASK = ("tasks", "losses", "metrics")  # tables that the task files fill


class Schema(NamedTuple):
    """What the top level of a configuration holds.

    Attributes:
        defaults: key -> value as the primary file has it.
        groups: groups that it composes.
        tasks: names of the known tasks.
    """

    defaults: dict[str, Any]
    groups: tuple[str, ...]
    tasks: tuple[str, ...]

    @property
    def trains(self) -> bool:
        """Whether it is that of a run, with tasks."""
        return "task" in self.groups

    @property
    def keys(self) -> set[str]:
        """All keys of the top level."""
        own = {group for group in self.groups if group not in GLOBAL}
        return {*self.defaults, *own, *(BY_TASK if self.trains else ())}


def schema_of(conf: Path, name: str, tasks: Iterable[str]) -> Schema:
    """The schema that the primary file ``conf/<name>.yaml`` stands for."""
    file = OmegaConf.to_container(OmegaConf.load(conf / f"{name}.yaml"))
    assert isinstance(file, dict)
    entries = [str(k) for e in file.pop("defaults", []) if isinstance(e, dict) for k in e]
    file.pop("hydra", None)
    groups = tuple(entry for entry in entries if not entry.startswith("override "))
    return Schema({str(key): value for key, value in file.items()}, groups, tuple(tasks))


def check_keys(keys: Iterable[str], schema: Schema) -> None:
    """Raises `ConfigError` for a top-level key too many or too few."""
    keys = list(keys)
    for key in keys:
        if key in GLOBAL and schema.trains:
            raise ConfigError(
                key,
                "is a group, not a key",
                f"choose a file with {key}=NAME; its first line is '# @package _global_'",
            )
        if key not in schema.keys:
            notes = f" (free notes go under {FREE})" if FREE in schema.keys else ""
            raise ConfigError(key, "unknown key", suggest(key, schema.keys) + notes)
    for key in sorted(schema.keys - {*keys, *OPTIONAL}):
        raise ConfigError(key, "is missing", "it may be changed, not deleted")


def check_types(values: Mapping[str, Any], schema: Schema) -> None:
    """Raises `ConfigError` for a top-level value unlike the one in the primary file."""
    for key, default in schema.defaults.items():
        if key == "ablations":
            _check_ablations(values[key])
        elif key in COUNTS:
            check_value(values[key], (Annotation("int"), Annotation("none")), key)
        elif key != FREE:
            _check_like(values[key], default, key)


def _check_ablations(value: Any) -> None:
    kinds = read_annotation(ast.Name("Ablation"), "polyqwen.data.tables.dataset")
    options = tuple(kind for kind in kinds if kind.value != "none")
    check_value(value, (Annotation("list", (options,)),), "ablations")


def _check_like(value: Any, default: Any, where: str) -> None:
    """Holds a value against the file's own; null and ``${…}`` there say only that it is one value.

    ``???`` stands for a text.
    """
    if isinstance(default, dict):
        if not isinstance(value, dict):
            raise ConfigError(where, f"must be a mapping, got {value!r}")
        for key in value:
            if key not in default:
                raise ConfigError(f"{where}.{key}", "unknown key", suggest(str(key), default))
            _check_like(value[key], default[key], f"{where}.{key}")
        return
    names: tuple[str, ...]
    if default is None:
        names = ("str", "none")  # a path that may be given
    elif isinstance(default, str):
        names = ("int", "str") if "${" in default else ("str",)
    else:
        name = type(default).__name__
        names = (name if name in SCALARS else "any",)
    check_value(value, tuple(map(Annotation, names)), where)
