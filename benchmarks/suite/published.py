"""Hugging Face's own Qwen2-VL on the module's weights: what users of other engines have."""

from typing import Any

import torch
from torch.nn import functional as F
from transformers import Qwen2VLModel

from benchmarks.suite.columns import Features, SentenceEncoder
from polyqwen.models.vision.patch_embedding import IMAGE_MEAN, IMAGE_STD
from polyqwen.training.module import EmbeddingModule


class PublishedEncoder(SentenceEncoder):
    """`Qwen2VLModel` as published, with the module's pooling and projection.

    Its parameters *are* the module's, so gradients meet in the same place. It takes pictures as
    Hugging Face's processor gives them, float32 patches of two frames; it is told which tokens show
    pictures, and computes positions and the attention mask itself.

    Args:
        module: whose weights to use.
    """

    def __init__(self, module: EmbeddingModule) -> None:
        super().__init__(module)
        own: Any = module.encoder.model
        self.image_id = own.config.image_token_id
        self.model = Qwen2VLModel(own.config)
        for name, parameter in own.named_parameters():
            holder, _, last = name.rpartition(".")
            setattr(self.model.get_submodule(holder), last, parameter)
        self.model.visual.eval()

    def forward(self, features: Features) -> Features:
        """Adds ``sentence_embedding`` (B, D), unit norm."""
        ids, mask = features["input_ids"], features["attention_mask"]
        pictures = {}
        if len(features.get("pixel_values", ())):
            pictures = {name: features[name] for name in ("pixel_values", "image_grid_thw")}
        hidden = self.model(
            input_ids=ids,
            attention_mask=mask,
            mm_token_type_ids=(ids == self.image_id).int(),
            use_cache=False,
            **pictures,
        ).last_hidden_state
        projected = self.projection(self.pooling(hidden, mask.bool()))
        return {**features, "sentence_embedding": F.normalize(projected.float(), dim=-1)}


def published_columns(columns: list[Features]) -> list[Features]:
    """The same columns with pictures as Hugging Face's processor gives them."""
    mean, std = (torch.tensor(values)[:, None, None] for values in (IMAGE_MEAN, IMAGE_STD))
    found = []
    for column in columns:
        own = dict(column)
        if "pixel_values" in own:
            patches = own["pixel_values"].unflatten(1, (3, 1, -1))  # (P, 3, 1, patch²)
            frame = (patches / 255.0 - mean) / std
            own["pixel_values"] = frame.expand(-1, -1, 2, -1).flatten(1)  # (P, 3 · 2 · patch²)
        found.append(own)
    return found
