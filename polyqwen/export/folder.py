"""Writes a trained model as one folder: for `polyqwen.load`, sentence-transformers and others."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from safetensors.torch import save_file

from polyqwen.atomic_files import write_json, write_text
from polyqwen.checkpoints.sidecar import hash_of
from polyqwen.data.tokens import Tokens
from polyqwen.inference.exported import (
    ADAPTERS,
    ENCODERS,
    FORMAT,
    HEAD,
    NAMES,
    POOLINGS,
    PROJECTIONS,
    SETTINGS,
    SUMS,
    Head,
    adapted_layers,
    adapter_weights,
    renamed,
)
from polyqwen.inference.inputs import GEOMETRY
from polyqwen.inference.model import EmbeddingModel
from polyqwen.models.pooling import AttentionPooling
from polyqwen.models.projection import PartedProjection
from polyqwen.models.qwen_vl import QwenVLEncoder
from polyqwen.models.tuning.sharing import AdaptedEncoder
from polyqwen.version import __version__

MODELING = Path(__file__).with_name("modeling_polyqwen.py")  # imports sentence-transformers
NORMALIZE = "2_Normalize", "sentence_transformers.base.modules.normalize.Normalize"
MODULES = (
    ("", "modeling_polyqwen.PolyqwenTransformer"),
    (HEAD, "modeling_polyqwen.PolyqwenHead"),
    NORMALIZE,
)


def save(model: EmbeddingModel, folder: Path) -> dict[str, Any]:
    """Writes weights, tokenizer, settings and what sentence-transformers reads, into a new folder.

    Returns:
        The settings, content of polyqwen.json.

    Raises:
        ValueError: the model has parts that the folder cannot hold.
    """
    encoder, head = exportable(model, parts=True)
    folder.mkdir(parents=True)
    adapters = _save_network(encoder.model, folder)
    save_tokenizer(model.tokens, folder)
    settings = model_settings(model, encoder) | {"adapters": adapters}
    if adapters or head.parts:
        _tell_apart(settings["frames"])
    write_json(folder / SETTINGS, settings)
    write_json(folder / HEAD / "config.json", head._asdict())
    weights = {
        renamed(f"{part}.{name}", NAMES): value.detach().cpu().contiguous()
        for part in ("pooling", "projection")
        for name, value in model.network[part].state_dict().items()
    }
    save_file(weights, folder / HEAD / "model.safetensors", metadata={"format": "pt"})
    write_json(folder / NORMALIZE[0] / "config.json", {})
    write_modules(folder, settings, MODULES)
    shutil.copyfile(MODELING, folder / MODELING.name)
    return settings


def exportable(model: EmbeddingModel, parts: bool = False) -> tuple[Any, Head]:
    """Encoder and head of a model; ValueError if a folder cannot hold them.

    Args:
        model: to be written.
        parts: whether it may have some for each task, from model/sharing.
    """
    pooling, projection = model.network["pooling"], cast(Any, model.network["projection"])
    copies = len(projection.copies) if isinstance(projection, PartedProjection) else 0
    encoder = cast(Any, model.network["encoder"])
    if parts:  # what all tasks have in common is looked at
        encoder = encoder.encoder if isinstance(encoder, AdaptedEncoder) else encoder
        projection = projection.copies[0] if copies else projection
    for kind, module, known in (
        ("encoder", encoder, tuple(ENCODERS.values())),
        ("pooling", pooling, tuple(POOLINGS)),
        ("projection", projection, tuple(PROJECTIONS)),
    ):
        if type(module) not in known:
            raise ValueError(
                f"a model whose {kind} is a {type(module).__name__} cannot be exported this way; "
                "parts per task, from model/sharing, need an export without --plain and --onnx"
            )
    queries = len(pooling.queries) if isinstance(pooling, AttentionPooling) else 0
    kinds = POOLINGS[type(pooling)], PROJECTIONS[type(projection)]
    return encoder, Head(encoder.hidden_size, model.dimension, *kinds, queries, copies)


def model_settings(model: EmbeddingModel, encoder: Any) -> dict[str, Any]:
    """All that framing an input needs, in plain numbers."""
    tokens = model.tokens
    frames = {}
    for task, most in model.tasks.items():
        whole = tokens.frame(task, (), 0)
        frames[task] = {
            "prompt": "" if tokens.prefix_mode == "none" else tokens.prefixes[task],
            "start": whole[: len(whole) - len(tokens.end)],
            "end": tokens.end,
            "visual_tokens": most,
        }
    pictures = None
    if isinstance(encoder, QwenVLEncoder):
        pictures = {
            "tokens": tokens.around_pictures,
            **{key: getattr(model.geometry, key) for key in GEOMETRY},
            "frames": cast(Any, encoder.model.config).vision_config.temporal_patch_size,
            "mean": list(encoder.tower.mean),
            "std": list(encoder.tower.std),
        }
    kind = next(name for name, known in ENCODERS.items() if type(encoder) is known)
    return {
        "format": FORMAT,
        "polyqwen": __version__,
        "encoder": kind,
        "default_task": model.default_task,
        "tokens": {
            "prefixes": tokens.prefixes,
            "prefix_mode": tokens.prefix_mode,
            "max_tokens": tokens.max_tokens,
        },
        "frames": frames,
        "pictures": pictures,
    }


def _tell_apart(frames: dict[str, Any]) -> None:
    """Prompts name the task: those of tasks with one prefix become the tasks' names."""
    prompts = [frame["prompt"] for frame in frames.values()]
    for task, frame in frames.items():
        if prompts.count(frame["prompt"]) > 1:
            frame["prompt"] = task


def _save_network(network: Any, folder: Path) -> dict[str, Any] | None:
    """Writes a Hugging Face model as it is without adapters, and these beside it.

    Returns:
        What is needed to put them back; None for a model without.
    """
    layers = adapted_layers(network)
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
    own = adapter_weights(layers)
    own = {name: value.detach().cpu().contiguous() for name, value in own.items()}
    save_file(own, folder / ADAPTERS, metadata={"format": "pt"})
    layer = next(iter(layers.values()))
    rank = layer.down.shape[1]
    targets = sorted({name.rpartition(".")[2] for name in layers})
    return {"targets": targets, "rank": rank, "alpha": layer.scale * rank}


def save_tokenizer(tokens: Tokens, folder: Path) -> None:
    """Encoding leaves its truncation in a tokenizer's state; the folder's starts without."""
    tokens.tokenizer.backend_tokenizer.no_truncation()
    tokens.tokenizer.backend_tokenizer.no_padding()
    tokens.tokenizer.save_pretrained(folder)


def write_modules(folder: Path, settings: dict[str, Any], types: Sequence[tuple[str, str]]) -> None:
    """The files that tell sentence-transformers what to build.

    Args:
        folder: of the model.
        settings: content of polyqwen.json; its frames become prompts.
        types: folder and class of each module.
    """
    modules = [
        {"idx": i, "name": str(i), "path": path, "type": kind}
        for i, (path, kind) in enumerate(types)
    ]
    write_json(folder / "modules.json", modules)
    prompts = {task: frame["prompt"] for task, frame in settings["frames"].items()}
    default = prompts[settings["default_task"]]
    card = {
        "model_type": "SentenceTransformer",
        "prompts": {**prompts, "query": default, "document": default},
        "default_prompt_name": settings["default_task"],
        "similarity_fn_name": "cosine",
    }
    write_json(folder / "config_sentence_transformers.json", card)


def write_sums(folder: Path) -> None:
    """Names and SHA-256 of all files, as ``sha256sum -c SHA256SUMS`` reads them."""
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p.name != SUMS)
    (folder / SUMS).touch()
    for path in files:  # safetensors lets nobody else read what it writes
        path.chmod((folder / SUMS).stat().st_mode)
    lines = [f"{hash_of(path)}  {path.relative_to(folder).as_posix()}\n" for path in files]
    write_text(folder / SUMS, "".join(lines))
