"""Qwen2-VL as an encoder of texts and pictures."""

from transformers import Qwen2VLConfig, Qwen2VLModel

from polyqwen.models.qwen_vl import QwenVLEncoder
from polyqwen.models.vision.tower import Tower


class Qwen2VLEncoder(QwenVLEncoder):
    """Qwen2-VL (Wang et al. 2024, arXiv 2409.12191): every patch of a picture sees every other."""

    model_class, config_class = Qwen2VLModel, Qwen2VLConfig
    tower = Tower()
