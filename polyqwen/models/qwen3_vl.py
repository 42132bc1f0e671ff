"""Qwen3-VL as an encoder of texts and pictures."""

from typing import Any

import torch
from torch import Tensor
from transformers import Qwen3VLConfig, Qwen3VLModel

from polyqwen.models.qwen_vl import QwenVLEncoder
from polyqwen.models.vision.tower import Tower


class DeepstackTower(Tower):
    """Features of several depths: the last ones, then those for the first language layers.

    They stand side by side in one row per visual token, (1 + depths) · H numbers, so that caches
    and stores of features need not know of them. Meng et al. 2024, arXiv 2406.04334.
    """

    def features(self, output: Any) -> Tensor:
        """See `Tower.features`."""
        return torch.cat([output.pooler_output, *output.deepstack_features], dim=-1)


class Qwen3VLEncoder(QwenVLEncoder):
    """Qwen3-VL (Bai et al. 2025, arXiv 2511.21631): deepstack features, patches of 16 pixels."""

    model_class, config_class = Qwen3VLModel, Qwen3VLConfig
    tower = DeepstackTower(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
