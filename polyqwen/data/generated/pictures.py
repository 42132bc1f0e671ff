"""What all generated pictures share: the grid, the grain of the paper and the way to disk."""

from pathlib import Path

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

CELL = 28  # pixels: one visual token of Qwen2-VL, 2 × 2 merged patches of 14

Mask = np.ndarray  # float32 [height, width], share of ink in each pixel, 0 to 1


def paper(height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """A light sheet of slightly varying tint, float32 [height, width, 3] in 0..255."""
    tint = rng.integers(244, 256, size=3).astype(np.float32)
    return np.broadcast_to(tint, (height, width, 3)).copy()


def ink(sheet: np.ndarray, mask: Mask, top: int, left: int, colour: np.ndarray) -> None:
    """Paints ``colour`` through ``mask`` onto the sheet, in place."""
    height, width = mask.shape
    area = sheet[top : top + height, left : left + width]
    area += mask[..., None] * (colour - area)


def save(sheet: np.ndarray, path: Path, note: str, rng: np.random.Generator) -> None:
    """Adds specks to a sheet and writes it as PNG.

    Args:
        sheet: float32 [height, width, 3] in 0..255.
        path: the file.
        note: what the picture shows, kept in the PNG's text field ``content`` for checks by eye or
            by test; a model is given pixels only.
        rng: the source of the specks.
    """
    # Specks, not noise everywhere: enough that no two pictures are equal, and small as a file.
    specks = rng.random(sheet.shape[:2]) < 0.01
    sheet[specks] += rng.integers(-40, 41, size=(int(specks.sum()), 1))
    info = PngInfo()
    info.add_itxt("content", note)
    image = Image.fromarray(np.clip(np.rint(sheet), 0, 255).astype(np.uint8))
    image.save(path, pnginfo=info, compress_level=1)
