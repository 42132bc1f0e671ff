"""What other engines take: one padded table per column of a data set, pictures in a row.

The same contents as the project's batches, in the order they came in, with the same tokens, M-RoPE
positions and uint8 patches. Names are those of Hugging Face's Qwen2-VL processor.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from polyqwen.data.collator import Collator, mrope_positions
from polyqwen.data.tables.dataset import Row, Side
from polyqwen.models.encoder import Chunk, Images
from polyqwen.training.module import EmbeddingModule

Features = dict[str, Tensor]


def columns(rows: Sequence[Row], make: Collator, device: torch.device) -> list[Features]:
    """The queries and the documents."""
    sides = [[row.query for row in rows], [row.document for row in rows]]
    return [{k: v.to(device) for k, v in _column(own, make).items()} for own in sides]


def _column(sides: Sequence[Side], make: Collator) -> Features:
    cell, merge = make.pictures.cell, make.pictures.merge_size
    grids = [(side.size[0] // cell, side.size[1] // cell) for side in sides]
    ids = [
        make.tokens.frame("pairs", side.ids, grid[0] * grid[1])
        for side, grid in zip(sides, grids, strict=True)
    ]
    width = max(map(len, ids))
    features = {
        "input_ids": torch.full((len(ids), width), make.tokens.pad_id),  # (B, L)
        "attention_mask": torch.zeros(len(ids), width, dtype=torch.int64),  # (B, L)
        "position_ids": torch.zeros(len(ids), width, 3, dtype=torch.int64),  # (B, L, 3)
    }
    for i, (own, grid) in enumerate(zip(ids, grids, strict=True)):
        size = len(own)
        start = own.index(make.tokens.image_id) if grid[0] else size
        features["input_ids"][i, :size] = torch.tensor(own)
        features["attention_mask"][i, :size] = 1
        features["position_ids"][i, :size] = torch.from_numpy(mrope_positions(size, start, grid)).T
    shown = [(side, grid) for side, grid in zip(sides, grids, strict=True) if grid[0]]
    if shown:
        patches = [make.pictures.patches(make.pictures.pixels(s.image, s.size)) for s, _ in shown]
        features["pixel_values"] = torch.from_numpy(np.concatenate(patches))  # (P, 3 · patch²)
        features["image_grid_thw"] = torch.tensor(
            [(1, g[0] * merge, g[1] * merge) for _, g in shown]
        )
        features["num_images_per_sample"] = torch.tensor([int(grid[0] > 0) for grid in grids])
    return features


def part(features: Features, begin: int, end: int) -> Features:
    """Some rows, without columns that are padding in all of them, with the pictures they show."""
    width = int(features["attention_mask"][begin:end].sum(1).max())
    names = ("input_ids", "attention_mask", "position_ids")
    own = {name: features[name][begin:end, :width] for name in names}
    if "pixel_values" in features:
        images = features["num_images_per_sample"]
        first, last = int(images[:begin].sum()), int(images[:end].sum())
        sizes = features["image_grid_thw"].prod(1)
        patches = slice(int(sizes[:first].sum()), int(sizes[:last].sum()))
        own["pixel_values"] = features["pixel_values"][patches]
        own["image_grid_thw"] = features["image_grid_thw"][first:last]
        own["num_images_per_sample"] = images[begin:end]
    return own


class SentenceEncoder(nn.Module):
    """The module's own encoder, pooling and projection, behind other engines' interface.

    So all engines run the same kernels on the same weights, and differ in what they do with them.

    Args:
        module: whose parts to use.
    """

    def __init__(self, module: EmbeddingModule) -> None:
        super().__init__()
        self.encoder, self.pooling, self.projection = (
            module.encoder,
            module.pooling,
            module.projection,
        )

    def forward(self, features: Features) -> Features:
        """Adds ``sentence_embedding`` (B, D), unit norm."""
        images, rows = None, None
        if len(features.get("pixel_values", ())):
            images = Images(features["pixel_values"], features["image_grid_thw"])
            tokens = images.grid.prod(1).sum() // 4
            rows = torch.arange(int(tokens), device=images.grid.device)
        mask = features["attention_mask"].bool()
        positions = features["position_ids"].permute(2, 0, 1)  # (3, B, L)
        chunk = Chunk(features["input_ids"], mask, positions, rows)
        hidden = self.encoder(chunk, self.encoder.encode_images(images))
        projected = self.projection(self.pooling(hidden, mask))
        return {**features, "sentence_embedding": F.normalize(projected.float(), dim=-1)}
