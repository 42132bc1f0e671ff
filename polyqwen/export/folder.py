"""A trained model as one folder: for `EmbeddingModel.load`, sentence-transformers and others."""

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from polyqwen.atomic_files import write_json
from polyqwen.data.images.images import Pictures
from polyqwen.data.tokens import Tokens
from polyqwen.export.parts import adapted, save_network, shared, tell_apart, without_copy
from polyqwen.inference.checksums import check_sums
from polyqwen.inference.model import EmbeddingModel
from polyqwen.models.pooling import AttentionPooling, ClsPooling, LastTokenPooling, MeanPooling
from polyqwen.models.projection import IdentityProjection, PartedProjection, ResidualProjection
from polyqwen.models.qwen2_5_vl import Qwen2_5_VLEncoder
from polyqwen.models.qwen2_vl import Qwen2VLEncoder
from polyqwen.models.qwen3_vl import Qwen3VLEncoder
from polyqwen.models.qwen_vl import QwenVLEncoder
from polyqwen.models.text import TextEncoder
from polyqwen.version import __version__

FORMAT = 1
SETTINGS, HEAD = "polyqwen.json", "1_Head"
MODELING = Path(__file__).with_name("modeling_polyqwen.py")  # imports sentence-transformers
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
NORMALIZE = "2_Normalize", "sentence_transformers.base.modules.normalize.Normalize"
MODULES = (
    ("", "modeling_polyqwen.PolyqwenTransformer"),
    (HEAD, "modeling_polyqwen.PolyqwenHead"),
    NORMALIZE,
)
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


class Head(NamedTuple):
    """Kinds and sizes of pooling and projection."""

    hidden_size: int
    output_size: int
    pooling: str
    projection: str
    num_queries: int
    parts: int = 0  # projections, one for each task


def save(model: EmbeddingModel, folder: Path) -> dict[str, Any]:
    """Writes weights, tokenizer, settings and what sentence-transformers reads, into a new folder.

    Returns:
        The settings, content of polyqwen.json.

    Raises:
        ValueError: the model has parts that the folder cannot hold.
    """
    encoder, head = exportable(model, parts=True)
    folder.mkdir(parents=True)
    adapters = save_network(encoder.model, folder)
    save_tokenizer(model.tokens, folder)
    settings = model_settings(model, encoder) | {"adapters": adapters}
    if adapters or head.parts:
        tell_apart(settings["frames"])
    write_json(folder / SETTINGS, settings)
    (folder / HEAD).mkdir()
    write_json(folder / HEAD / "config.json", head._asdict())
    weights = {
        _renamed(name, NAMES): value.detach().cpu().contiguous()
        for part in ("pooling", "projection")
        for name, value in _prefixed(model.network[part], part).items()
    }
    save_file(weights, folder / HEAD / "model.safetensors", metadata={"format": "pt"})
    (folder / NORMALIZE[0]).mkdir()
    write_json(folder / NORMALIZE[0] / "config.json", {})
    write_modules(folder, settings, MODULES)
    shutil.copyfile(MODELING, folder / MODELING.name)
    return settings


def load(folder: Path) -> EmbeddingModel:
    """A model that `save` wrote.

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
    cut = {"patch_size": settings["pictures"]["patch_size"]} if settings["pictures"] else {}
    encoder = ENCODERS[settings["encoder"]].from_pretrained(
        str(folder), vocabulary=vocabulary, **cut
    )
    adapters = settings.get("adapters")  # absent in folders of before
    if adapters is not None:
        encoder = adapted(encoder, adapters, len(settings["frames"]), folder)
    head = Head(**json.loads((folder / HEAD / "config.json").read_text(encoding="utf-8")))
    pooling, projection = _head(head)
    weights = load_file(folder / HEAD / "model.safetensors")
    back = {theirs: ours for ours, theirs in NAMES.items()}
    weights = {_renamed(name, back): value for name, value in weights.items()}
    for part, module in (("pooling", pooling), ("projection", projection)):
        own = {n.replace(f"{part}.", "", 1): v for n, v in weights.items() if f"{part}." in n}
        try:
            module.load_state_dict(own, strict=True)
        except RuntimeError as error:
            raise ValueError(f"{folder / HEAD} does not fit its config.json: {error}") from error
    return EmbeddingModel(
        encoder,
        pooling,
        projection,
        tokens=tokens,
        pictures=_geometry(settings),
        tasks={name: frame["visual_tokens"] for name, frame in settings["frames"].items()},
        default_task=settings["default_task"],
        separate=adapters is not None,
    )


def exportable(model: EmbeddingModel, parts: bool = False) -> tuple[Any, Head]:
    """Encoder and head of a model; ValueError if a folder cannot hold them.

    Args:
        model: to be written.
        parts: whether it may have some for each task, from model/sharing.
    """
    pooling, projection = model.network["pooling"], model.network["projection"]
    copies = len(projection.copies) if isinstance(projection, PartedProjection) else 0
    encoder = cast(Any, model.network["encoder"])
    if parts:
        encoder, projection = shared(encoder, projection)
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


def _head(head: Head) -> tuple[nn.Module, nn.Module]:
    pooling_class = {name: kind for kind, name in POOLINGS.items()}[head.pooling]
    projection_class = {name: kind for kind, name in PROJECTIONS.items()}[head.projection]
    queries = {"num_queries": head.num_queries} if head.pooling == "attention" else {}
    pooling = pooling_class(head.hidden_size, **queries)
    projection = projection_class(head.hidden_size, head.output_size)
    return pooling, PartedProjection(projection, head.parts, 0.0) if head.parts else projection


def model_settings(model: EmbeddingModel, encoder: Any) -> dict[str, Any]:
    """All that framing an input needs, in plain numbers."""
    tokens, geometry = model.tokens, model.geometry
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
            "patch_size": geometry.patch_size,
            "merge_size": geometry.merge_size,
            "min_visual_tokens": geometry.min_visual_tokens,
            "max_visual_tokens": geometry.max_visual_tokens,
            "resize": geometry.resize,
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


def _geometry(settings: dict[str, Any]) -> Pictures:
    """A text model's is never asked."""
    keys = ("patch_size", "merge_size", "min_visual_tokens", "max_visual_tokens", "resize")
    own = {key: settings["pictures"][key] for key in keys} if settings["pictures"] else {}
    return Pictures(Path("/").resolve(), cache_mb=0, **own)


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


def _prefixed(module: nn.Module, part: str) -> dict[str, Tensor]:
    return {f"{part}.{name}": value for name, value in module.state_dict().items()}


def _renamed(name: str, names: Mapping[str, str]) -> str:
    """A weight's name with its beginning exchanged; that of a copy stays one."""
    name, copy = without_copy(name)
    known = next(k for k in names if name == k or name.startswith(f"{k}."))
    return copy + names[known] + name.removeprefix(known)
