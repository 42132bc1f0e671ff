"""Loads an exported polyqwen model in sentence-transformers; needs nothing of polyqwen.

    SentenceTransformer(folder, trust_remote_code=True)

This file travels with the model: it frames texts and pictures as in training (start, task prefix,
picture, text, end), runs the Hugging Face model, and pools and projects its hidden states. Prompts
are the prefixes of the tasks: ``encode(texts, prompt_name="ocr")``. Inputs are texts, PIL pictures,
or ``{"text": …, "image": …}``; pictures need Pillow alone, not torchvision.
"""

import inspect
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from PIL import Image, ImageOps
from safetensors.torch import load_file, save_file
from sentence_transformers.base.modules.input_module import InputModule
from sentence_transformers.base.modules.module import Module
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AutoModel, AutoTokenizer
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize


class PolyqwenTransformer(InputModule):
    """Texts and pictures to hidden states.

    Args:
        model: the Hugging Face model.
        tokenizer: its tokenizer, with the prefixes.
        settings: content of polyqwen.json.
        adapters: content of adapters.safetensors: of each task, for some layers.
    """

    config_file_name = "polyqwen.json"
    save_in_root = True

    def __init__(
        self, model: Any, tokenizer: Any, settings: dict[str, Any], adapters: Any = None
    ) -> None:
        super().__init__()
        self.model: Any = model
        self.tokenizer, self.settings = tokenizer, settings
        self.frames: dict[str, Any] = settings["frames"]
        self.by_prompt = {frame["prompt"]: name for name, frame in self.frames.items()}
        self.added = sorted(tokenizer.get_added_vocab(), key=len, reverse=True)
        self.takes = set(inspect.signature(model.forward).parameters)
        self.adapters, self.part = set(adapters or {}), None  # (B,) whose task's each row gets
        for name, value in (adapters or {}).items():
            layer = model.get_submodule(name.rpartition(".")[0])
            layer.register_buffer(name.rpartition(".")[2], value, persistent=False)
            if name.endswith(".down"):
                layer.register_forward_hook(self._adapt)

    @property
    def modalities(self) -> list[Any]:
        """What may be encoded."""
        return ["text", "image", ("image", "text")] if self.settings["pictures"] else ["text"]

    def preprocess(
        self, inputs: Sequence[Any], prompt: str | None = None, task: str | None = None, **_: Any
    ) -> dict[str, Tensor]:
        """Framed ids, mask and patches of the inputs; ``prompt`` is a task's prefix."""
        # encode_query and encode_document name a side as the task
        name = task if task in self.frames else self.by_prompt.get(prompt or "")
        name = name or self.settings["default_task"]
        frame, part = self.frames[name], list(self.frames).index(name)
        contents = [_text_and_image(one) for one in inputs]
        ids, patches, grids = [], [], []
        for text, image in contents:
            visual: list[int] = []
            if image is not None:
                patch, grid = self._patches(image, frame["visual_tokens"])
                patches.append(patch)
                grids.append(grid)
                before, pad, after = self.settings["pictures"]["tokens"]
                count = grid[1] * grid[2] // self.settings["pictures"]["merge_size"] ** 2
                visual = [*_given(before), *[pad] * count, *_given(after)]
            ids.append([*frame["start"], *visual, *self._encode(text), *frame["end"]])
        longest = max(map(len, ids))
        padding = int(self.tokenizer.pad_token_id or 0)
        features = {
            "input_ids": torch.tensor([one + [padding] * (longest - len(one)) for one in ids]),
            "attention_mask": torch.tensor(
                [[1] * len(one) + [0] * (longest - len(one)) for one in ids]
            ),
            "part": torch.full((len(ids),), part),
        }
        if grids:
            pad = self.settings["pictures"]["tokens"][1]
            features["pixel_values"] = torch.cat(patches)
            features["image_grid_thw"] = torch.tensor(grids)
            features["mm_token_type_ids"] = (features["input_ids"] == pad).long()
        return features

    def forward(self, features: dict[str, Any], **_: Any) -> dict[str, Any]:
        """Adds ``token_embeddings``, (B, L, H)."""
        given = {name: value for name, value in features.items() if name in self.takes}
        self.part = features.get("part")
        features["token_embeddings"] = self.model(**given).last_hidden_state
        return features

    def _adapt(self, layer: Any, given: Any, out: Tensor) -> Tensor:
        """y = W x + b + (α/r) · U_p D_p x."""
        down, up = layer.down[self.part].mT, layer.up[self.part].mT  # (B, in, r), (B, r, out)
        own = self.settings["adapters"]
        return out + own["alpha"] / own["rank"] * (given[0] @ down @ up)

    def _encode(self, text: str) -> list[int]:
        """Ids of a text, cut; a spelled-out special token stays plain text."""
        limit, known = (
            self.settings["tokens"]["max_tokens"],
            set(self.tokenizer.get_added_vocab().values()),
        )
        plain = {"add_special_tokens": False, "split_special_tokens": True}
        ids = self.tokenizer([text], truncation=True, max_length=limit, **plain)["input_ids"][0]
        if not known.intersection(ids):
            return list(ids)
        pieces = [text]
        for token in self.added:
            pieces = [part for piece in pieces for part in _cut_inside(piece, token)]
        parts = self.tokenizer(pieces, **plain)["input_ids"]
        return [i for part in parts for i in part if i not in known][:limit]

    def _patches(self, image: Image.Image, most: int) -> tuple[Tensor, list[int]]:
        """Normalised patches, (P, 3 · 2 · patch²), and patches along time, height and width."""
        own = self.settings["pictures"]
        size, merge = own["patch_size"], own["merge_size"]
        cell = size * merge
        image = _upright_rgb(image)
        height, width = smart_resize(
            image.height,
            image.width,
            factor=cell,
            min_pixels=own["min_visual_tokens"] * cell**2,
            max_pixels=min(most, own["max_visual_tokens"] or most) * cell**2,
        )
        pixels = _resized(image, height, width, own["resize"])  # (H, W, 3) uint8
        rows, columns = height // cell, width // cell
        grid = pixels.reshape(rows, merge, size, columns, merge, size, 3)
        frame = grid.permute(0, 3, 1, 4, 6, 2, 5).reshape(-1, 3, 1, size, size).float()
        mean, std = (torch.tensor(own[name])[:, None, None, None] for name in ("mean", "std"))
        frame = (frame / 255.0 - mean) / std
        frames = frame.expand(-1, -1, own["frames"], -1, -1)  # a still picture repeats its frame
        return frames.flatten(1), [1, rows * merge, columns * merge]

    def get_config_dict(self) -> dict[str, Any]:
        """Content of polyqwen.json."""
        return self.settings

    def save(self, output_path: str, *_: Any, **settings: Any) -> None:
        """Writes model, tokenizer and settings."""
        self.model.save_pretrained(output_path)
        self.save_tokenizer(output_path)
        self.save_config(output_path)
        if self.adapters:
            own = {n: x.cpu() for n, x in self.model.named_buffers() if n in self.adapters}
            save_file(own, f"{output_path}/adapters.safetensors", metadata={"format": "pt"})

    @classmethod
    def load(cls, model_name_or_path: str, **given: Any) -> "PolyqwenTransformer":
        """From a folder or a hub id; weights that do not match are refused."""
        names = ("subfolder", "token", "cache_folder", "revision", "local_files_only")
        hub = {name: given[name] for name in names if given.get(name)}
        settings = cls.load_config(model_name_or_path, **hub)
        found = settings.get("adapters") and "adapters.safetensors"
        adapters = found and load_file(str(cls.load_file_path(model_name_or_path, found, **hub)))
        hub |= {"cache_dir": hub.pop("cache_folder")} if "cache_folder" in hub else {}
        model, report = AutoModel.from_pretrained(
            model_name_or_path, output_loading_info=True, **hub, **(given.get("model_kwargs") or {})
        )
        missing = [key for key in report["missing_keys"] if not key.startswith("pooler")]
        if missing or report["unexpected_keys"]:
            raise ValueError(
                f"{model_name_or_path}: {len(missing)} weights are missing and "
                f"{len(report['unexpected_keys'])} are unknown; export the model again"
            )
        processing = given.get("processor_kwargs") or {}
        tokenizer = AutoTokenizer.from_pretrained(model_name_or_path, **hub, **processing)
        return cls(model, tokenizer, settings, adapters)


class PolyqwenHead(Module):
    """Hidden states to one vector: pooling, then projection.

    Args:
        hidden_size: H, width of the hidden states.
        output_size: D, length of the vector.
        pooling: attention, mean, cls or last_token.
        projection: residual or identity.
        num_queries: learned queries of the attention pooling.
        parts: number of projections, one for each task; 0: one for all.
    """

    config_keys: ClassVar[list[str]] = [
        "hidden_size",
        "output_size",
        "pooling",
        "projection",
        "num_queries",
        "parts",
    ]

    def __init__(
        self,
        hidden_size: int,
        output_size: int,
        pooling: str,
        projection: str,
        num_queries: int = 0,
        parts: int = 0,
    ) -> None:
        super().__init__()
        one = (hidden_size, output_size, "cls", projection)  # a pooling without weights
        self.copies = nn.ModuleList(PolyqwenHead(*one) for _ in range(parts))
        self.hidden_size, self.output_size = hidden_size, output_size
        self.pooling, self.projection, self.num_queries = pooling, projection, num_queries
        self.parts = parts
        weights: dict[str, nn.Module] = {}
        if pooling == "attention":
            self.queries = nn.Parameter(torch.zeros(num_queries, hidden_size))
            weights["pool_output"] = nn.Linear(num_queries * hidden_size, hidden_size)
        if projection == "residual" and not parts:
            weights["hidden"] = nn.Linear(hidden_size, output_size)
            weights["output"] = nn.Linear(output_size, output_size)
            weights["norm"] = nn.LayerNorm(output_size)
            if hidden_size != output_size:
                weights["shortcut"] = nn.Linear(hidden_size, output_size, bias=False)
            self.alpha = nn.Parameter(torch.zeros(()))
        self.layers = nn.ModuleDict(weights)

    def forward(self, features: dict[str, Any], **_: Any) -> dict[str, Any]:
        """Adds ``sentence_embedding``, (B, D), without unit norm."""
        pooled = self._pool(features["token_embeddings"], features["attention_mask"].bool())
        features["sentence_embedding"] = self._project(pooled, features.get("part"))
        return features

    def _project(self, pooled: Tensor, part: Any) -> Tensor:
        """(B, H) -> (B, D); by the copy of each row's task, where there are several."""
        if self.parts:
            heads: list[Any] = list(self.copies)
            each = torch.stack([head._project(pooled, part) for head in heads])  # (T, B, D)
            return each[part, torch.arange(len(part), device=part.device)]
        if self.projection == "identity":
            return pooled
        inner = self.layers["output"](F.gelu(self.layers["hidden"](pooled)))
        short = self.layers["shortcut"](pooled) if "shortcut" in self.layers else pooled
        return self.alpha * self.layers["norm"](inner) + (1.0 - self.alpha) * short

    def _pool(self, hidden: Tensor, mask: Tensor) -> Tensor:
        """(B, L, H), (B, L) -> (B, H)."""
        every = torch.arange(len(hidden), device=hidden.device)
        if self.pooling == "attention":
            scores = torch.einsum("blh,kh->bkl", hidden, self.queries.to(hidden.dtype)).float()
            lowest = torch.finfo(torch.float32).min
            weights = scores.masked_fill(~mask[:, None], lowest).softmax(-1) * mask[:, None]
            heads = torch.einsum("bkl,blh->bkh", weights.to(hidden.dtype), hidden)
            return self.layers["pool_output"](heads.flatten(1))
        if self.pooling == "mean":
            weights = mask.float() / mask.sum(-1, keepdim=True).clamp(min=1)
            return torch.einsum("bl,blh->bh", weights, hidden.float()).to(hidden.dtype)
        if self.pooling == "last_token":
            places = torch.arange(mask.shape[1], device=mask.device)
            return hidden[every, (places * mask).argmax(-1)]
        return hidden[every, mask.int().argmax(-1)]

    def get_embedding_dimension(self) -> int:
        """D."""
        return self.output_size

    def save(self, output_path: str, *_: Any, safe_serialization: bool = True, **__: Any) -> None:
        """Writes configuration and weights."""
        self.save_config(output_path)
        self.save_torch_weights(output_path, safe_serialization=safe_serialization)

    @classmethod
    def load(cls, model_name_or_path: str, **given: Any) -> "PolyqwenHead":
        """From a folder or a hub id."""
        names = ("subfolder", "token", "cache_folder", "revision", "local_files_only")
        hub = {name: given[name] for name in names if given.get(name)}
        head = cls(**cls.load_config(model_name_or_path, **hub))
        cls.load_torch_weights(model_name_or_path, model=head, **hub)
        return head


def _text_and_image(given: Any) -> tuple[str, Image.Image | None]:
    if isinstance(given, str):
        return given.strip(), None
    if isinstance(given, Image.Image):
        return "", given
    if isinstance(given, Mapping) and not set(given) - {"text", "image"}:
        image = given.get("image")
        if image is None or isinstance(image, Image.Image):
            return str(given.get("text") or "").strip(), image
    raise ValueError("inputs are texts, PIL pictures, or mappings with text and image (PIL)")


def _given(token: int | None) -> list[int]:
    return [] if token is None else [token]


def _upright_rgb(image: Image.Image) -> Image.Image:
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):  # 16 bit
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGB", image.size, "white")
        white.paste(image, mask=image.getchannel("A"))
        return white
    return image if image.mode == "RGB" else image.convert("RGB")


def _resized(image: Image.Image, height: int, width: int, by: str) -> Tensor:
    if image.size != (width, height) and by == "pillow":
        image = image.resize((width, height), Image.Resampling.BICUBIC)
    pixels = torch.from_numpy(np.array(image))
    if image.size == (width, height):
        return pixels
    channels = pixels.permute(2, 0, 1)[None]
    resized = F.interpolate(channels, (height, width), mode="bicubic", antialias=True)
    return resized[0].permute(1, 2, 0)


def _cut_inside(text: str, token: str) -> list[str]:
    """Cuts a text after the first character of every occurrence of a token."""
    first, *rest = text.split(token)
    pieces = [first]
    for part in rest:
        pieces[-1] += token[0]
        pieces.append(token[1:] + part)
    return pieces
