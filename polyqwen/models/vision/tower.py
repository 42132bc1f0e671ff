"""Running the vision tower of a Qwen-VL model, with attention within each picture."""

from typing import Any

import torch
from torch import Tensor, nn
from transformers.models.qwen2_vl.modeling_qwen2_vl import (
    VisionAttention,
    apply_rotary_pos_emb_vision,
)

from polyqwen.models.encoder import Images
from polyqwen.models.packing import Packing, attend
from polyqwen.models.vision.patch_embedding import IMAGE_MEAN, IMAGE_STD, Colour, PatchEmbedding


class PackedVisionAttention(nn.Module):
    """Attention within each picture, all pictures end to end.

    ``softmax(q kᵀ / √d) v`` over each picture's patches, as `VisionAttention` computes it picture
    by picture; see `attend`. A batch of many small pictures is several times faster this way on a
    CPU, and a GPU is never waited for. The parameters keep their names (``qkv``, ``proj``):
    checkpoints load unchanged.

    Args:
        attention: the Hugging Face module to take over; those of Qwen2.5-VL and Qwen3-VL are equal.
        borders: keyword of the `Packing` to attend within: pictures, or windows of them.
    """

    def __init__(self, attention: VisionAttention, borders: str = "packing") -> None:
        super().__init__()
        self.qkv, self.proj = attention.qkv, attention.proj
        self.heads, self.borders = attention.num_heads, borders

    def forward(
        self,
        hidden_states: Tensor,
        position_embeddings: tuple[Tensor, Tensor],
        **known: Any,
    ) -> Tensor:
        """(P, width) patches of all pictures -> (P, width)."""
        packing: Packing = known[self.borders]
        qkv = self.qkv(hidden_states).unflatten(-1, (3, self.heads, -1))  # (P, 3, heads, d)
        query, key, value = qkv.unbind(1)
        query, key = apply_rotary_pos_emb_vision(query, key, *position_embeddings)
        mixed = attend(query, key, value, packing, causal=False)  # (P, heads, d)
        return self.proj(mixed.flatten(1))


def patch_positions(grid: Tensor, packing: Packing, merge: int) -> Tensor:
    """Row and column of each patch in its picture; the merge² of one token follow each other.

    As transformers' `get_vision_position_ids`, which asks the device for every picture's size.

    Args:
        grid: (I, 3) int64, patches of each picture along time, height and width.
        packing: borders of the pictures.
        merge: patches along each side of one visual token.

    Returns:
        (P, 2) int64.
    """
    picture, place = packing.segments()  # (P,), (P,)
    cell, inner = place // merge**2, place % merge**2
    across = (grid[:, 2] // merge)[picture]
    row = cell // across * merge + inner // merge
    column = cell % across * merge + inner % merge
    return torch.stack([row, column], dim=-1)


class Tower:
    """Qwen2-VL's tower: full attention within each picture, one feature per visual token.

    What differs between the models has a method here.

    Args:
        mean: of the pictures that the tower was trained with, by colour, in [0, 1].
        std: their deviation.
    """

    def __init__(self, mean: Colour = IMAGE_MEAN, std: Colour = IMAGE_STD) -> None:
        self.mean, self.std = mean, std

    def take_over(self, visual: Any, own: bool) -> None:
        """Puts our patch embedding and, if ``own``, our attention into the Hugging Face tower."""
        visual.patch_embed = PatchEmbedding(visual.patch_embed.proj, self.mean, self.std)
        for i, block in enumerate(visual.blocks if own else ()):
            block.attn = PackedVisionAttention(block.attn, self.borders_of(visual, i))

    def run(self, visual: Any, images: Images, packing: Packing, own: bool) -> Tensor:
        """Visual tokens of all pictures, one row each: (V, F)."""
        grid = images.grid
        # given, since the tower would ask the device for them
        known: dict[str, Any] = {
            "cu_seqlens": packing.borders,
            "max_seqlen": packing.longest,
            "position_ids": patch_positions(grid, packing, visual.spatial_merge_size),
            **self.settings(visual, grid, own),
        }
        if own:
            known["packing"] = packing
        return self.features(visual(images.patches, grid_thw=grid, **known))

    def borders_of(self, visual: Any, block: int) -> str:
        """Keyword of the `Packing` within which a block attends."""
        return "packing"

    def settings(self, visual: Any, grid: Tensor, own: bool) -> dict[str, Any]:
        """Further arguments of the tower; `own` tells whether our attention reads them."""
        return {}

    def features(self, output: Any) -> Tensor:
        """(V, F) of what the tower returns; F is a multiple of the language model's width."""
        return output.pooler_output
