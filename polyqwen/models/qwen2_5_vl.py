"""Qwen2.5-VL as an encoder of texts and pictures."""

from typing import Any

from torch import Tensor
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLModel
from transformers.vision_utils import get_vision_window_index

from polyqwen.models.packing import Packing
from polyqwen.models.qwen_vl import QwenVLEncoder
from polyqwen.models.vision.tower import Tower


class WindowTower(Tower):
    """Most blocks attend within windows of a picture, a few within the whole picture."""

    def borders_of(self, visual: Any, block: int) -> str:
        """See `Tower.borders_of`."""
        return "packing" if block in visual.fullatt_block_indexes else "windows"

    def settings(self, visual: Any, grid: Tensor, own: bool) -> dict[str, Any]:
        """Order and borders of the windows, from the pictures' sizes on the host."""
        index, borders = get_vision_window_index(
            grid.cpu(), visual.spatial_merge_size, visual.window_size, visual.patch_size
        )
        sizes = borders.diff()
        windows = Packing.of(sizes.to(grid.device), sizes.tolist())
        known: dict[str, Any] = {
            "window_index": index.to(grid.device),
            "cu_window_seqlens": windows.borders,
            "max_window_seqlen": windows.longest,
        }
        return known | ({"windows": windows} if own else {})


class Qwen2_5_VLEncoder(QwenVLEncoder):
    """Qwen2.5-VL (Bai et al. 2025, arXiv 2502.13923): attention within windows of pictures."""

    model_class, config_class = Qwen2_5_VLModel, Qwen2_5_VLConfig
    tower = WindowTower()
