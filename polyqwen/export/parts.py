"""Parts per task in an exported folder: adapters inside the encoder, copies of the projection."""

import re
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from polyqwen.models.projection import PartedProjection
from polyqwen.models.tuning.task_adapters import AdaptedEncoder, LowRankLinear

ADAPTERS = "adapters.safetensors"
COPY = re.compile(r"copies\.\d+\.")


def shared(encoder: Any, projection: nn.Module) -> tuple[Any, nn.Module]:
    """What all tasks have in common: the encoder below adapters, one of the projections."""
    encoder = encoder.encoder if isinstance(encoder, AdaptedEncoder) else encoder
    projection = projection.copies[0] if isinstance(projection, PartedProjection) else projection
    return encoder, projection


def without_copy(name: str) -> tuple[str, str]:
    """A weight's name without ``copies.N.``, and that."""
    found = COPY.search(name)
    copy = found[0] if found else ""
    return name.replace(copy, "", 1), copy


def save_network(network: Any, folder: Path) -> dict[str, Any] | None:
    """Writes a Hugging Face model as it is without adapters, and these beside it.

    Returns:
        What is needed to put them back; None for a model without.
    """
    layers = _adapted(network)
    if not layers:
        network.save_pretrained(folder)
        return None
    weights = network.state_dict()
    for name in layers:
        for key in [key for key in weights if key.startswith(f"{name}.")]:
            value = weights.pop(key)
            if key.startswith(f"{name}.linear."):
                weights[key.replace(f"{name}.linear.", f"{name}.")] = value
    network.save_pretrained(folder, state_dict=weights)
    own = {name: value.detach().cpu().contiguous() for name, value in _weights(layers).items()}
    save_file(own, folder / ADAPTERS, metadata={"format": "pt"})
    layer = next(iter(layers.values()))
    rank = layer.down.shape[1]
    targets = sorted({name.rpartition(".")[2] for name in layers})
    return {"targets": targets, "rank": rank, "alpha": layer.scale * rank}


def adapted(encoder: Any, settings: dict[str, Any], parts: int, folder: Path) -> AdaptedEncoder:
    """The encoder with the folder's adapters.

    Raises:
        ValueError: they are not those of this encoder.
    """
    found = AdaptedEncoder(encoder, parts, **settings, freeze=False)
    weights: dict[str, Tensor] = load_file(folder / ADAPTERS)
    own = _weights(_adapted(encoder.model))
    if own.keys() != weights.keys() or any(own[n].shape != weights[n].shape for n in own):
        raise ValueError(f"{folder / ADAPTERS} does not fit its model; export it again")
    with torch.no_grad():
        for name, value in weights.items():
            own[name].copy_(value)
    return found


def tell_apart(frames: dict[str, Any]) -> None:
    """Prompts name the task: those of tasks with one prefix become the tasks' names."""
    prompts = [frame["prompt"] for frame in frames.values()]
    for task, frame in frames.items():
        if prompts.count(frame["prompt"]) > 1:
            frame["prompt"] = task


def _adapted(network: nn.Module) -> dict[str, LowRankLinear]:
    return {n: m for n, m in network.named_modules() if isinstance(m, LowRankLinear)}


def _weights(layers: dict[str, LowRankLinear]) -> dict[str, Tensor]:
    return {f"{n}.{side}": getattr(x, side) for n, x in layers.items() for side in ("down", "up")}
