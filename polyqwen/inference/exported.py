"""Reads a folder that `polyqwen.export` wrote: its format, its weights, its checksums."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from polyqwen.checkpoints.sidecar import hash_of
from polyqwen.data.tokens import Tokens
from polyqwen.inference.inputs import geometry
from polyqwen.models.pooling import AttentionPooling, ClsPooling, LastTokenPooling, MeanPooling
from polyqwen.models.projection import IdentityProjection, PartedProjection, ResidualProjection
from polyqwen.models.qwen2_5_vl import Qwen2_5_VLEncoder
from polyqwen.models.qwen2_vl import Qwen2VLEncoder
from polyqwen.models.qwen3_vl import Qwen3VLEncoder
from polyqwen.models.text import TextEncoder
from polyqwen.models.tuning.sharing import AdaptedEncoder, LowRankLinear

FORMAT = 1
SETTINGS, HEAD, ADAPTERS, SUMS = "polyqwen.json", "1_Head", "adapters.safetensors", "SHA256SUMS"
POOLINGS: dict[type[nn.Module], str] = {
    AttentionPooling: "attention",
    MeanPooling: "mean",
    ClsPooling: "cls",
    LastTokenPooling: "last_token",
}
PROJECTIONS: dict[type[nn.Module], str] = {
    ResidualProjection: "residual",
    IdentityProjection: "identity",
}
ENCODERS: dict[str, Any] = {
    "qwen2_vl": Qwen2VLEncoder,
    "qwen2_5_vl": Qwen2_5_VLEncoder,
    "qwen3_vl": Qwen3VLEncoder,
    "text": TextEncoder,
}
# the head's weights: their names here, and in `modeling_polyqwen.PolyqwenHead`
NAMES = {
    "pooling.queries": "queries",
    "pooling.output": "layers.pool_output",
    "projection.alpha": "alpha",
    "projection.hidden": "layers.hidden",
    "projection.output": "layers.output",
    "projection.norm": "layers.norm",
    "projection.shortcut": "layers.shortcut",
}
COPY = re.compile(r"copies\.\d+\.")


class Head(NamedTuple):
    """Kinds and sizes of pooling and projection."""

    hidden_size: int
    output_size: int
    pooling: str
    projection: str
    num_queries: int
    parts: int = 0  # projections, one for each task

    def build(self) -> tuple[nn.Module, nn.Module]:
        """Pooling and projection, untrained."""
        pooling_class = {name: kind for kind, name in POOLINGS.items()}[self.pooling]
        projection_class = {name: kind for kind, name in PROJECTIONS.items()}[self.projection]
        queries = {"num_queries": self.num_queries} if self.pooling == "attention" else {}
        pooling = pooling_class(self.hidden_size, **queries)
        projection = projection_class(self.hidden_size, self.output_size)
        return pooling, PartedProjection(projection, self.parts, 0.0) if self.parts else projection


def exported_parts(folder: Path) -> dict[str, Any]:
    """Arguments of `EmbeddingModel` from a folder that `polyqwen.export.folder.save` wrote.

    Raises:
        ValueError: a file is missing or changed, or its weights do not fit.
    """
    check_sums(folder)
    settings = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
    if settings.get("format") != FORMAT:
        raise ValueError(
            f"{folder} was exported in format {settings.get('format')}, this version reads {FORMAT}"
        )
    tokens = Tokens(str(folder), **settings["tokens"])
    vocabulary = tokens.vocabulary._replace(new_tokens=())  # the folder's rows are trained
    shown = settings["pictures"] or {}  # none for a text model, which is never asked
    cut = {"patch_size": shown["patch_size"]} if shown else {}
    encoder = ENCODERS[settings["encoder"]].from_pretrained(
        str(folder), vocabulary=vocabulary, **cut
    )
    adapters = settings.get("adapters")  # absent in folders that older versions wrote
    if adapters is not None:
        encoder = _with_adapters(encoder, adapters, len(settings["frames"]), folder)
    pooling, projection = _head(folder / HEAD)
    return {
        "encoder": encoder,
        "pooling": pooling,
        "projection": projection,
        "tokens": tokens,
        "pictures": geometry(shown),
        "tasks": {name: frame["visual_tokens"] for name, frame in settings["frames"].items()},
        "default_task": settings["default_task"],
        "separate": adapters is not None,
    }


def _head(folder: Path) -> tuple[nn.Module, nn.Module]:
    head = Head(**json.loads((folder / "config.json").read_text(encoding="utf-8")))
    pooling, projection = head.build()
    weights = load_file(folder / "model.safetensors")
    back = {theirs: ours for ours, theirs in NAMES.items()}
    weights = {renamed(name, back): value for name, value in weights.items()}
    for part, module in (("pooling", pooling), ("projection", projection)):
        own = {n.replace(f"{part}.", "", 1): v for n, v in weights.items() if f"{part}." in n}
        try:
            module.load_state_dict(own, strict=True)
        except RuntimeError as error:
            raise ValueError(f"{folder} does not fit its config.json: {error}") from error
    return pooling, projection


def renamed(name: str, names: Mapping[str, str]) -> str:
    """A weight's name with its beginning exchanged; that of a copy stays one (``copies.N.``)."""
    found = COPY.search(name)
    copy = found[0] if found else ""
    name = name.replace(copy, "", 1)
    known = next(k for k in names if name == k or name.startswith(f"{k}."))
    return copy + names[known] + name.removeprefix(known)


def _with_adapters(
    encoder: Any, settings: dict[str, Any], parts: int, folder: Path
) -> AdaptedEncoder:
    """The encoder with the folder's adapters; ValueError if they are not those of this encoder."""
    found = AdaptedEncoder(encoder, parts, **settings, freeze=False)
    weights: dict[str, Tensor] = load_file(folder / ADAPTERS)
    own = adapter_weights(adapted_layers(encoder.model))
    if own.keys() != weights.keys() or any(own[n].shape != weights[n].shape for n in own):
        raise ValueError(f"{folder / ADAPTERS} does not fit its model; export it again")
    with torch.no_grad():
        for name, value in weights.items():
            own[name].copy_(value)
    return found


def adapted_layers(network: nn.Module) -> dict[str, LowRankLinear]:
    """The layers with adapters, by name."""
    return {n: m for n, m in network.named_modules() if isinstance(m, LowRankLinear)}


def adapter_weights(layers: Mapping[str, LowRankLinear]) -> dict[str, Tensor]:
    """What an exported folder holds of each of these layers, as ``LAYER.down`` and ``LAYER.up``."""
    return {f"{n}.{side}": getattr(x, side) for n, x in layers.items() for side in ("down", "up")}


def check_sums(folder: Path) -> None:
    """Raises ValueError for a folder whose files are not those that were exported."""
    listing = folder / SUMS
    if not listing.is_file():
        raise ValueError(f"{folder} has no {SUMS}: its export did not end; export it again")
    for line in listing.read_text(encoding="utf-8").splitlines():
        wanted, _, name = line.partition("  ")
        path = folder / name
        if not path.is_file() or hash_of(path) != wanted:
            what = "has changed since the export" if path.is_file() else "is missing"
            raise ValueError(f"{path} {what}; export the model again, or copy the folder again")
