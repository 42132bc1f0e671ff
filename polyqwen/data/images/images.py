"""Pictures: from a file under the data root to patches, decoded late and kept within a budget."""

from collections import OrderedDict
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.nn import functional as F
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize

from polyqwen.data.images.embedded import PictureStore, picture_of
from polyqwen.data.images.files import picture_path, read_picture, read_size

Resize = Literal["torch", "pillow"]


class Pictures:
    """Opens, resizes and cuts pictures as Qwen2-VL's processor does, in uint8.

    Args:
        root: folder that every picture must lie in.
        patch_size: side of a patch in pixels.
        merge_size: patches along each side of one visual token.
        min_visual_tokens: smaller pictures are enlarged to this many visual tokens.
        max_visual_tokens: cap over what the tasks allow; None leaves it to them.
        cache_mb: megabytes of resized pictures to keep in this process, >= 0.
        resize: ``torch`` or ``pillow``, who does the bicubic resizing. Both compute the same in
            fixed point; torch is several times faster on an x86 CPU and, where the two round
            differently, off by 1 of 255, on noise by 2. Pillow gives the very pixels of
            `Qwen2VLImageProcessorPil`.
        store: folder for the pictures that lie in rows; None refuses such rows.

    Raises:
        ValueError: another ``resize``.
    """

    def __init__(
        self,
        root: Path,
        *,
        patch_size: int = 14,
        merge_size: int = 2,
        min_visual_tokens: int = 1,
        max_visual_tokens: int | None = None,
        cache_mb: int = 256,
        resize: Resize = "torch",
        store: Path | None = None,
    ) -> None:
        if resize not in ("torch", "pillow"):
            raise ValueError(f"data.resize must be torch or pillow, got {resize!r}")
        self.resize = resize
        self.root = Path(root).resolve()
        self.store = None if store is None else PictureStore(store)
        self.patch_size = patch_size
        self.merge_size = merge_size
        self.min_visual_tokens = min_visual_tokens
        self.max_visual_tokens = max_visual_tokens
        self._budget = cache_mb * 2**20
        self._used = 0
        self._cache: OrderedDict[tuple[str, int, int], NDArray[np.uint8]] = OrderedDict()

    @property
    def cell(self) -> int:
        """Side in pixels of the square that becomes one visual token."""
        return self.patch_size * self.merge_size

    def path(self, name: str) -> Path:
        """The file of a picture; refuses whatever leads out of the data root."""
        kept = None if self.store is None else self.store.find(name)
        return kept or picture_path(self.root, name)

    def named(self, cell: Any) -> Any:
        """The name of the picture in a row's cell, which is kept if the cell holds its bytes.

        What is neither bytes nor ``{"bytes": …, "path": …}`` comes back as it is.

        Raises:
            PictureError: the bytes are too many.
        """
        found = picture_of(cell)
        return self.store.keep(found) if self.store and isinstance(found, bytes) else found

    def open(self, name: str) -> Image.Image:
        """The decoded picture; see `read_picture`."""
        return read_picture(self.path(name))

    def size(self, name: str) -> tuple[int, int]:
        """Height and width of the upright picture, from the header only."""
        return read_size(self.path(name))

    def target_size(self, size: tuple[int, int], max_visual_tokens: int) -> tuple[int, int]:
        """Height and width after resizing, both multiples of `cell`."""
        height, width = size
        area = self.cell**2
        if self.max_visual_tokens is not None:
            max_visual_tokens = min(max_visual_tokens, self.max_visual_tokens)
        return smart_resize(
            height,
            width,
            factor=self.cell,
            min_pixels=self.min_visual_tokens * area,
            max_pixels=max_visual_tokens * area,
        )

    def visual_tokens(self, size: tuple[int, int], max_visual_tokens: int) -> int:
        """Visual tokens of a picture of this size."""
        height, width = self.target_size(size, max_visual_tokens)
        return height * width // self.cell**2

    def pixels(self, name: str, target: tuple[int, int]) -> NDArray[np.uint8]:
        """The picture resized to `target`: (height, width, 3) uint8, from the cache if there."""
        key = (name, *target)
        if key in self._cache:
            self._cache.move_to_end(key)
            return self._cache[key]
        pixels = self.resized(self.open(name), target)
        if pixels.nbytes <= self._budget:
            self._cache[key] = pixels
            self._used += pixels.nbytes
            while self._used > self._budget:
                self._used -= self._cache.popitem(last=False)[1].nbytes
        return pixels

    def resized(self, image: Image.Image, target: tuple[int, int]) -> NDArray[np.uint8]:
        """An RGB picture at the height and width of `target`: (height, width, 3) uint8."""
        if image.size == (target[1], target[0]):
            return np.asarray(image)
        if self.resize == "pillow":
            return np.asarray(image.resize((target[1], target[0]), Image.Resampling.BICUBIC))
        # channels stay last in memory, which is the kernel's fast layout
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None]  # (1, 3, H, W)
        resized = F.interpolate(pixels, target, mode="bicubic", antialias=True)
        return resized[0].permute(1, 2, 0).numpy()

    def patches(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """(H, W, 3) -> (patches, 3 · patch²); the patches of one visual token follow each other."""
        size, merge = self.patch_size, self.merge_size
        rows, columns = pixels.shape[0] // self.cell, pixels.shape[1] // self.cell
        grid = pixels.reshape(rows, merge, size, columns, merge, size, 3)
        return grid.transpose(0, 3, 1, 4, 6, 2, 5).reshape(-1, 3 * size * size)
