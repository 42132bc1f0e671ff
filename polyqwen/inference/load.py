"""Reads the parts of a trained model from a run's folder or an exported one."""

from pathlib import Path
from typing import Any

from polyqwen.inference.exported import SETTINGS, exported_parts
from polyqwen.inference.inputs import geometry

# what of a run's configuration the embedding of an input depends on
EMBEDS = ("model", "tasks")


def model_parts(folder: Path, checkpoint: str = "last") -> dict[str, Any]:
    """Arguments of `EmbeddingModel` from a folder of either kind.

    Args:
        folder: of a run, or one that ``polyqwen export`` wrote.
        checkpoint: of a run: ``last``, ``best`` or a path.

    Raises:
        ValueError: it is neither, or its weights are missing, damaged or of another model.
    """
    exported = (folder / SETTINGS).is_file()
    return exported_parts(folder) if exported else run_parts(folder, checkpoint)


def run_parts(folder: Path, checkpoint: str = "last") -> dict[str, Any]:
    """Arguments of `EmbeddingModel` from a run, with the weights of one of its checkpoints.

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
    names = ("encoder", "pooling", "projection")
    parts: dict[str, Any] = {name: getattr(network, name) for name in names}
    path = checkpoint_path(folder, checkpoint)
    take_parts(parts, read_state(path)["state_dict"], path)
    merge(parts["encoder"])  # one product a layer instead of three, and a folder to export
    return parts | {
        "tokens": network.tokens,
        "pictures": geometry(values["data"]),
        "tasks": {name: task.visual_tokens for name, task in network.tasks.items()},
        "separate": network.separate,
    }
