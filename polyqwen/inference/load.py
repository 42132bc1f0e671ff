"""Loads a trained model from a run's folder or an exported one."""

from pathlib import Path
from typing import cast

import torch
from torch import nn
from transformers.utils import logging

from polyqwen.inference.exported import SETTINGS, load_exported
from polyqwen.inference.inputs import geometry
from polyqwen.inference.model import EmbeddingModel

# what of a run's configuration the embedding of an input depends on
EMBEDS = ("model", "tasks")


def load(
    folder: str | Path, *, checkpoint: str = "last", device: str | None = None
) -> EmbeddingModel:
    """The model of a run's folder, or of a folder made by ``polyqwen export``.

    Args:
        folder: the folder.
        checkpoint: of a run: ``last``, ``best`` or a path.
        device: such as ``cuda`` or ``cpu``; None takes a GPU if there is one.

    Raises:
        ValueError: it is neither, or its weights are missing, damaged or of another model.
    """
    logging.disable_progress_bar()
    folder = Path(folder)
    exported = (folder / SETTINGS).is_file()
    model = load_exported(folder) if exported else load_run(folder, checkpoint)
    return model.to(device or ("cuda" if torch.cuda.is_available() else "cpu"))


def load_run(folder: Path, checkpoint: str = "last") -> EmbeddingModel:
    """The model of a run, with the weights of one of its checkpoints.

    Raises:
        ValueError: a file is missing or damaged, or names what may not be built.
    """
    # Hydra and Lightning take seconds to import, and an exported folder needs neither
    from polyqwen.build.network import build_network
    from polyqwen.config.check import checked, load_saved_config, resolved
    from polyqwen.config.errors import ConfigError
    from polyqwen.config.hub_revisions import warn_of_unpinned
    from polyqwen.models.tuning.merging import merge
    from polyqwen.runs.weights import checkpoint_path, read_state, take_parts

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
