"""Attention of the vision tower: pictures of equal size together, in one call."""

from itertools import groupby

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.models.qwen2_vl.modeling_qwen2_vl import (
    VisionAttention,
    apply_rotary_pos_emb_vision,
)


class GroupedVisionAttention(nn.Module):
    """Attention within each picture, one call per run of neighbours of equal length.

    ``softmax(q kᵀ / √d) v`` over each picture's patches, as `VisionAttention` computes it picture
    by picture; a batch of many small pictures is several times faster this way on a CPU. The
    parameters keep their names (``qkv``, ``proj``): checkpoints load unchanged.

    Args:
        attention: the Hugging Face module to take over.
    """

    def __init__(self, attention: VisionAttention) -> None:
        super().__init__()
        self.qkv, self.proj = attention.qkv, attention.proj
        self.heads = attention.num_heads

    def forward(
        self,
        hidden_states: Tensor,
        cu_seqlens: Tensor,
        position_embeddings: tuple[Tensor, Tensor],
        **_: object,
    ) -> Tensor:
        """(P, width) patches of all pictures, ``cu_seqlens`` their borders -> (P, width)."""
        patches = len(hidden_states)
        qkv = self.qkv(hidden_states).reshape(patches, 3, self.heads, -1)  # (P, 3, heads, d)
        query, key, value = qkv.unbind(1)
        query, key = apply_rotary_pos_emb_vision(query, key, *position_embeddings)
        runs = [(n, len(list(run))) for n, run in groupby(torch.diff(cu_seqlens).tolist())]
        sizes = [length * pictures for length, pictures in runs]
        parts = zip(query.split(sizes), key.split(sizes), value.split(sizes), runs, strict=True)
        mixed = [
            F.scaled_dot_product_attention(
                *(x.unflatten(0, (pictures, length)).transpose(1, 2) for x in (q, k, v))
            ).transpose(1, 2)
            for q, k, v, (length, pictures) in parts
        ]  # each (pictures, length, heads, d)
        return self.proj(torch.cat([x.reshape(-1, self.proj.in_features) for x in mixed]))
