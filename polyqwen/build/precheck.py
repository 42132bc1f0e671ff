"""Builds the parts that need torch at most, so that their own checks speak within seconds."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hydra.errors import InstantiationException

from polyqwen.build.instantiate import make_part, weighting_node
from polyqwen.config.candidate_losses import LIBRARY
from polyqwen.config.errors import ConfigError, user_message

WIDTH = 8  # of the stand-in for an encoder
SPLITS = ("train", "dev", "test")
FOLDER = "polyqwen.data.rows.sources.FolderSource"


def check_values(values: Mapping[str, Any]) -> None:
    """Calls the constructors of tasks, curriculum, losses, weighting and head.

    What they return is thrown away; the run builds its own under its seed. Optimizer, trainer,
    callbacks, encoder, metrics and data module come with the heavy imports and speak then.

    Raises:
        ConfigError: a constructor refuses its arguments, or a file that must be there is not.
    """
    _check_files(values)
    tasks = {name: built(f"tasks.{name}", node) for name, node in values["tasks"].items()}
    _check_negatives(values)
    built("curriculum", values["curriculum"], shares={n: t.share for n, t in tasks.items()})
    if values["data"]["source"]["_target_"] == FOLDER:
        source = built("data.source", values["data"]["source"])
        for name, task in tasks.items():
            for split in SPLITS:
                source.reader(task.folder or name, split)
    if values["data"].get("sampling"):
        built("data.sampling", values["data"]["sampling"])
    _check_torch_parts(values)


def _check_negatives(values: Mapping[str, Any]) -> None:
    """Raises `ConfigError` for a loss that asks for negatives which its task does not have."""
    for name, node in values["losses"].items():
        where = f"tasks.{name}.negatives_from"
        source = values["tasks"][name].get("negatives_from")
        if source == "given" and node.get("symmetric"):
            what = f"has no second direction with {where}=given: given negatives are documents"
            raise ConfigError(f"losses.{name}.symmetric", what, "set it to false")
        if source == "batch" and node.get("given_only"):
            what = f"has nothing to take with {where}=batch"
            raise ConfigError(f"losses.{name}.given_only", what, f"set {where}=both")


def _check_torch_parts(values: Mapping[str, Any]) -> None:
    """Not the optimizer: making one imports the compiler, which takes a second."""
    built("weighting", weighting_node(values))
    built("large_batch", values["large_batch"])
    for name, node in (values.get(LIBRARY) or {}).items():
        if node is not None:
            built(f"{LIBRARY}.{name}", node)
    for name, node in values["losses"].items():
        built(f"losses.{name}", node, embedding_size=WIDTH)
    model = values["model"]
    built("model.sharing", model["sharing"])
    built("model.pooling", model["pooling"], hidden_size=WIDTH)
    width = model["projection"].get("output_size") or WIDTH
    built("model.projection", model["projection"], hidden_size=width)


def _check_files(values: Mapping[str, Any]) -> None:
    for key in ("init_from", "ckpt_path"):
        path = values.get(key)
        if path is not None and not Path(path).is_file():
            raise ConfigError(key, f"there is no checkpoint {path}")


def built(key: str, node: Mapping[str, Any], **added: Any) -> Any:
    """What the node's target returns; its `ValueError` as a `ConfigError` that names the key."""
    try:
        return make_part(key, node, **added)
    except InstantiationException as error:
        text = user_message(error)
        if text is None:
            raise
        named = text.startswith((f"{key}.", f"{key} "))  # as in "weighting.bounds must be …"
        where, _, what = text.partition(" ") if named else (key, "", text)
        raise ConfigError(where, what) from error
