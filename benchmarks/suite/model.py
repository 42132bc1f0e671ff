"""The model of the benchmarks: `EmbeddingModule` with random weights, tiny or full size."""

from functools import partial
from typing import Any

import torch

from benchmarks.suite.workloads import TASK
from polyqwen.losses.info_nce import InfoNCELoss
from polyqwen.metrics.classification import SpaceMetrics
from polyqwen.models.loading import Vocabulary
from polyqwen.models.pooling import AttentionPooling
from polyqwen.models.projection import ResidualProjection
from polyqwen.models.qwen2_vl import Qwen2VLEncoder
from polyqwen.training.module import EmbeddingModule
from polyqwen.training.optimizer import adamw
from polyqwen.weighting.base import Weighting
from polyqwen.weighting.by_loss.static import StaticWeighting

TEMPERATURE = 0.05  # sentence-transformers' default scale of 20
TINY: dict[str, Any] = {
    "text_config": {
        "hidden_size": 192,
        "intermediate_size": 768,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 4096,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 10_000.0,
            "mrope_section": [6, 9, 9],
        },
    },
    "vision_config": {
        "depth": 5,
        "embed_dim": 160,
        "num_heads": 4,
        "mlp_ratio": 4,
        "hidden_size": 192,
    },
}
QWEN2_VL_2B: dict[str, Any] = {
    "text_config": {
        "hidden_size": 1536,
        "intermediate_size": 8960,
        "num_hidden_layers": 28,
        "num_attention_heads": 12,
        "num_key_value_heads": 2,
        "max_position_embeddings": 32768,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 1_000_000.0,
            "mrope_section": [16, 24, 24],
        },
    },
    "vision_config": {
        "depth": 32,
        "embed_dim": 1280,
        "num_heads": 16,
        "mlp_ratio": 4,
        "hidden_size": 1536,
    },
}


def build(
    config: dict[str, Any],
    vocabulary: Vocabulary,
    embedding: int,
    seed: int = 0,
    weighting: Weighting | None = None,
) -> EmbeddingModule:
    """The module with tasks of matching pairs and a frozen vision tower.

    Args:
        config: `TINY` or `QWEN2_VL_2B`.
        vocabulary: of the tokenizer.
        embedding: D, width of the embeddings.
        seed: of the weights; drawn on the default device.
        weighting: names the tasks; None: one task with a weight of 1.
    """
    weighting = weighting or StaticWeighting({TASK: 1.0})
    torch.manual_seed(seed)
    encoder = Qwen2VLEncoder.from_config(config, freeze_vision=True, vocabulary=vocabulary)
    module = EmbeddingModule(
        encoder,
        AttentionPooling(encoder.hidden_size),
        ResidualProjection(encoder.hidden_size, embedding),
        losses={task: InfoNCELoss(TEMPERATURE) for task in weighting.tasks},
        weighting=weighting,
        metrics={task: SpaceMetrics() for task in weighting.tasks},
        optimizer=partial(
            adamw,
            total_steps=1_000_000,
            backbone_lr=1e-9,  # an optimizer's whole work; weights stay where they are
            head_lr=1e-9,
            backbone_weight_decay=0.0,
            head_weight_decay=0.0,
        ),
    )
    return module.train()
