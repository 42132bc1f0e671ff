"""Refuses a configuration with a wrong key or value before anything heavy is imported."""

from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import InterpolationKeyError, MissingMandatoryValue, OmegaConfBaseException

from polyqwen.config.absent_tasks import drop_absent_tasks
from polyqwen.config.candidate_losses import LIBRARY, further_losses
from polyqwen.config.errors import ConfigError, one_line, suggest
from polyqwen.config.identity import flat_settings
from polyqwen.config.inert import check_inert
from polyqwen.config.moved_targets import with_current_targets
from polyqwen.config.nested import entries
from polyqwen.config.nodes import check_nodes
from polyqwen.config.ranges import check_ranges
from polyqwen.config.toplevel import BY_TASK, FREE, Schema, check_keys, check_types

NODES = ("data", "curriculum", "weighting", "large_batch", "optimizer", "trainer")
MODEL = ("encoder", "pooling", "projection", "sharing", "tuning", "tokens")
PARTS = ("callbacks", "logger")  # any number of nodes; null switches one off
# what transformers takes code from, in a model's own configuration
CODE = ("_attn_implementation", "attn_implementation", "auto_map", "trust_remote_code")


def check(cfg: DictConfig, schema: Schema, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Checks a composed configuration; settings of tasks that take no part are dropped from it.

    Args:
        cfg: as composed.
        schema: of its primary file.
        overrides: the command line's: a key given there must have an effect.

    Returns:
        It, resolved, as plain containers.

    Raises:
        ConfigError: for the first mistake found.
    """
    check_keys([str(key) for key in cfg], schema)
    _check_eval_steps(cfg)
    dropped = drop_absent_tasks(cfg, schema.tasks) if schema.trains else []
    values = resolved(cfg)
    check_texts(values)
    check_types(values, schema)
    if schema.trains:
        _check_parts(values)
    _check_nodes_and_ranges(values)
    if schema.trains:
        _check_tasks(values, (*schema.tasks, *values["tasks"]))
        _check_steps(values["curriculum"])
        check_inert(cfg, values, overrides, dropped)
    return values


def _check_nodes_and_ranges(values: Mapping[str, Any]) -> None:
    """All of it but the free notes."""
    checked = {key: value for key, value in values.items() if key != FREE}
    check_nodes(checked)
    check_ranges(checked)


def resolved(cfg: DictConfig) -> dict[str, Any]:
    """The configuration as plain containers, its interpolations resolved."""
    try:
        values = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    except MissingMandatoryValue as error:
        key = error.full_key or one_line(error).rpartition(" ")[2]
        raise ConfigError(key, "has no value yet", f"give {key}=…") from error
    except InterpolationKeyError as error:
        name = one_line(error).partition("'")[2].partition("'")[0]
        what = f"${{{name}}} stands for a key that is not there"
        paths = flat_settings(OmegaConf.to_container(cfg, resolve=False))
        where = [path for path, value in paths.items() if f"${{{name}}}" in str(value)]
        near = suggest(name, paths) if get_close_matches(name, paths) else ""
        raise ConfigError(where[0] if where else str(error.full_key), what, near) from error
    except OmegaConfBaseException as error:
        what = str(error.msg or error).partition("\n")[0]
        raise ConfigError(str(error.full_key or "configuration"), what) from error
    assert isinstance(values, dict)
    return {str(key): value for key, value in values.items()}


def check_texts(values: Mapping[str, Any]) -> None:
    """Refuses texts that would be read once more, and addresses.

    A ``${`` that is left would be resolved when a saved configuration is read again, after all
    checks. A ``…://`` would make Lightning open a remote file system, or load a checkpoint from it
    with less care than from a disk.

    Raises:
        ConfigError: naming the key.
    """
    for path, key, value in entries(values):
        free = path.partition(".")[0] == FREE
        if key in CODE and not free:
            raise ConfigError(path, "would bring code along", "leave it out")
        for text in (key or "", value if isinstance(value, str) else ""):
            if "${" in text:
                what = f"still holds ${{ after it was resolved: {text!r}"
                raise ConfigError(path, what, "write the value itself")
            if "://" in text and not free:
                what = f"{text!r} is an address, and nothing is opened over the network"
                raise ConfigError(path, what, "give a local path")


def _check_parts(values: Mapping[str, Any]) -> None:
    """Every part of a run is a node with ``_target_``, and there are no others."""
    model = values["model"]
    for key in model if isinstance(model, dict) else ():
        if key not in MODEL:
            raise ConfigError(f"model.{key}", "unknown key", suggest(str(key), MODEL))
    for name in MODEL:
        _check_node(f"model.{name}", model.get(name) if isinstance(model, dict) else None)
    for name in NODES:
        _check_node(name, values[name])
    for table in (*BY_TASK, *PARTS, *({LIBRARY} & values.keys())):
        nodes = values[table]
        if not isinstance(nodes, dict):
            raise ConfigError(table, f"must be a mapping of nodes, got {nodes!r}")
        whole = [
            name for name, node in nodes.items() if isinstance(node, dict) and "_target_" in node
        ]
        for name, node in nodes.items():
            if node is not None or table in BY_TASK:
                _check_node(f"{table}.{name}", node, whole)


def _check_node(where: str, node: Any, others: Sequence[str] = ()) -> None:
    if isinstance(node, dict) and "_target_" in node:
        return
    if not isinstance(node, dict):
        raise ConfigError(where, f"must be a node with _target_, got {node!r}")
    name = where.rpartition(".")[2]
    others = [other for other in others if other != name]
    raise ConfigError(where, "unknown key, or a node without _target_", suggest(name, others))


def _check_tasks(values: Mapping[str, Any], known: Sequence[str]) -> None:
    """Names of tasks, wherever they stand; the run's own tables agree on which take part."""
    run = tuple(values["tasks"])
    tables = {table: values[table] for table in BY_TASK}
    tables["weighting.static"] = values["weighting"].get("static", run)
    weighed = (*run, *further_losses(values))
    for table, names in tables.items():
        for name in names:
            _check_task(f"{table}.{name}", name, run if table in BY_TASK else weighed)
        for name in run:
            if name not in names:
                raise ConfigError(f"{table}.{name}", f"is missing; task {name} takes part")
    if not run:
        raise ConfigError("tasks", "there are none", f"use task=[{','.join(known[:2])}]")
    if "wrong_prefix" in values["ablations"] and len(run) < 2:
        raise ConfigError("ablations", "wrong_prefix needs a second task to take a prefix from")
    alpha = values["weighting"].get("alpha")  # a number in some strategies
    for name in alpha if isinstance(alpha, dict) else ():
        _check_task(f"weighting.alpha.{name}", name, (*known, *weighed))
    beta = values["weighting"].get("beta")  # likewise
    for name in (beta.get("tasks") or ()) if isinstance(beta, dict) else ():
        _check_task("weighting.beta.tasks", name, (*known, *weighed))
    for where, name in _named(values):
        _check_task(where, name, known)
    folders = [node["folder"] for node in values["tasks"].values() if node.get("folder")]
    for name in (values["data"].get("source") or {}).get("datasets") or ():
        _check_task(f"data.source.datasets.{name}", name, (*known, *folders))


def _named(values: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Places outside the run's own tables that name tasks."""
    rows = values["data"].get("rows_per_task")
    for name in rows if isinstance(rows, dict) else ():
        yield f"data.rows_per_task.{name}", name
    for name in values["curriculum"].get("starts") or ():
        yield f"curriculum.starts.{name}", name
    for name in values["curriculum"].get("foundation") or ():
        yield "curriculum.foundation", name
    for key, node in values["callbacks"].items():
        for name in [node["task"]] if node and node.get("task") else []:
            yield f"callbacks.{key}.task", name
        for name in (node or {}).get("losses") or ():
            yield f"callbacks.{key}.losses", name


def _check_task(where: str, name: Any, known: Sequence[str]) -> None:
    if name not in known:
        raise ConfigError(where, f"there is no task {name!r}", suggest(str(name), set(known)))


def _check_eval_steps(cfg: DictConfig) -> None:
    """Keys that follow ``eval_steps`` need its value."""
    if cfg.get("eval_steps") is not None:
        return
    plain = flat_settings(OmegaConf.to_container(cfg, resolve=False))
    if following := [key for key, value in plain.items() if value == "${eval_steps}"]:
        what = f"has no value yet, and {', '.join(following)} follow it"
        raise ConfigError("eval_steps", what, "give eval_steps=…, or leave out eval=tied")


def _check_steps(curriculum: Mapping[str, Any]) -> None:
    """The run's length, which the trainer and the optimizer are told."""
    total, start = curriculum.get("total_steps"), curriculum.get("start_step", 0)
    if not isinstance(total, int) or not 0 <= start < total:
        raise ConfigError(
            "curriculum.total_steps", f"must be above start_step={start}, got {total}"
        )


def load_saved_config(path: Path) -> DictConfig:
    """A saved configuration, its targets by today's paths and nothing resolved.

    `checked` it must be before anything is built.

    Raises:
        ConfigError: it is not the configuration of a run.
    """
    cfg = OmegaConf.load(path)
    if not isinstance(cfg, DictConfig):
        raise ConfigError(str(path), "is not the configuration of a run")
    return OmegaConf.create(with_current_targets(OmegaConf.to_container(cfg, resolve=False)))


def checked(cfg: DictConfig, keys: Sequence[str] | None = None) -> DictConfig:
    """What was checked and nothing else: no interpolation is left to be resolved anew.

    Args:
        cfg: as read.
        keys: of the top level that are asked for; None takes all.

    Raises:
        ConfigError: as for a configuration of one's own.
    """
    values = resolved(cfg)
    check_texts(values)
    values = values if keys is None else {key: values[key] for key in keys}
    _check_nodes_and_ranges(values)
    return OmegaConf.create(values)
