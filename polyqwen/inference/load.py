"""A trained model from a run's folder."""

from pathlib import Path
from typing import Any, cast

from torch import nn

from polyqwen.build.run import build_network
from polyqwen.config.check import resolved
from polyqwen.config.errors import ConfigError
from polyqwen.config.hub_revisions import warn_of_unpinned
from polyqwen.config.untrusted import checked, load_saved_config
from polyqwen.data.images.images import Pictures
from polyqwen.inference.model import EmbeddingModel
from polyqwen.models.tuning.merging import merge
from polyqwen.runs.weights import checkpoint_path, read_state, take_parts

FILE_SYSTEM = Path("/").resolve()
# what of a run's configuration the embedding of an input depends on
EMBEDS = ("model", "tasks")


def load_run(folder: Path, checkpoint: str = "last") -> EmbeddingModel:
    """The model of a run, with the weights of one of its checkpoints.

    Raises:
        ValueError: a file is missing or damaged, or names what may not be built.
    """
    if not (folder / "config.yaml").is_file():
        raise ValueError(
            f"{folder} is neither the folder of a run (with config.yaml) nor an exported model"
        )
    run = load_saved_config(folder / "config.yaml")
    if any(key not in run for key in (*EMBEDS, "data")):
        raise ConfigError(str(folder / "config.yaml"), "is not the configuration of a run")
    cfg = checked(run, (*EMBEDS, "data"))  # a file from elsewhere may name any target
    values = resolved(cfg)
    warn_of_unpinned({key: values[key] for key in EMBEDS})
    network = build_network(cfg)
    parts = {name: getattr(network, name) for name in ("encoder", "pooling", "projection")}
    path = checkpoint_path(folder, checkpoint)
    take_parts(cast(dict[str, nn.Module], parts), read_state(path)["state_dict"], path)
    merge(parts["encoder"])  # one product a layer instead of three, and a folder to export
    return EmbeddingModel(
        **parts,
        tokens=network.tokens,
        pictures=geometry(values["data"]),
        tasks={name: task.visual_tokens for name, task in network.tasks.items()},
        separate=network.separate,
    )


def geometry(data: dict[str, Any]) -> Pictures:
    """Opens a caller's own files, wherever they are, as the run showed its pictures."""
    keys = ("patch_size", "min_visual_tokens", "max_visual_tokens", "resize")
    shown = {key: data[key] for key in keys if key in data}  # runs of before had fewer
    return Pictures(FILE_SYSTEM, cache_mb=0, **shown)
