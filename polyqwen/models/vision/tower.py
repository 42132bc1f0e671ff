"""Running the vision tower of a Qwen-VL model; what differs between them has a method here."""

from typing import Any

from torch import Tensor

from polyqwen.models.encoder import Images
from polyqwen.models.packing import Packing
from polyqwen.models.vision.attention import PackedVisionAttention, patch_positions
from polyqwen.models.vision.patch_embedding import IMAGE_MEAN, IMAGE_STD, Colour, PatchEmbedding


class Tower:
    """Qwen2-VL's tower: full attention within each picture, one feature per visual token.

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
