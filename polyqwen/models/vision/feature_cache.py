"""What a frozen vision tower made of pictures, kept on disk."""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from polyqwen.atomic_files import write_bytes
from polyqwen.models.encoder import Images


class VisionCache:
    """Visual tokens by picture, so that a tower that never changes sees each picture once.

    Worth its space where the same pictures come again: several epochs, many runs on one data set,
    a tower that is slow here. One epoch gains nothing. A picture takes V · H numbers, 0.8 MB in
    bf16 for 256 visual tokens of Qwen2-VL-2B; nothing is ever thrown away, so delete the folder
    when it is too large.

    A file's place says what it depends on: the tower's weights, its input's mean and deviation,
    the precision it ran in, and the picture's patches and grid (which the processor's settings act
    through). Files appear whole, by renaming: processes and runs may share a folder.
    Patches are compared on the host, which waits for a GPU once per batch.

    Args:
        folder: made if it is not there.
        tower: with frozen weights; they may be loaded later.
        merge: patches along each side of one visual token.
    """

    def __init__(self, folder: str | Path, tower: nn.Module, merge: int) -> None:
        self.folder = Path(folder)
        self._tower, self._patches = tower, merge**2
        self._known: tuple[object, str] | None = None  # state of the weights, their hash

    def __call__(self, images: Images, see: Callable[[Images], Tensor]) -> Tensor:
        """The pictures' visual tokens (V, H); `see` is asked for those not seen before.

        Raises:
            ValueError: a file is damaged.
        """
        lengths = images.grid.prod(1).tolist() if images.lengths is None else images.lengths
        patches, grid = images.patches.split(list(lengths)), images.grid.cpu()
        files = [self._file(p.cpu(), g) for p, g in zip(patches, grid, strict=True)]
        found = {i: self._read(file) for i, file in enumerate(files) if file.exists()}
        new = [i for i in range(len(files)) if i not in found]
        if new:
            batch = Images(
                torch.cat([patches[i] for i in new]), images.grid[new], [lengths[i] for i in new]
            )
            tokens = see(batch).split([lengths[i] // self._patches for i in new])
            for i, own in zip(new, tokens, strict=True):
                self._write(files[i], own)
                found[i] = own
        device = images.patches.device
        return torch.cat([found[i].to(device) for i in range(len(files))])

    def _file(self, patches: Tensor, grid: Tensor) -> Path:
        content = hashlib.blake2b(repr(grid.tolist()).encode(), digest_size=16)
        content.update(patches.contiguous().numpy().data)
        name = content.hexdigest()
        return self.folder / self._settings() / name[:2] / f"{name}.safetensors"

    def _settings(self) -> str:
        """Hash of the weights, looked at again whenever they may have changed; and precision."""
        weights = list(self._tower.state_dict().items())
        state = [(w.data_ptr(), w._version, w.dtype, w.device) for _, w in weights]
        if self._known is None or self._known[0] != state:
            embedding: Any = self._tower.patch_embed
            self._known = (state, _hash(weights, (embedding.mean, embedding.std)))
        device = weights[0][1].device.type
        mixed = torch.is_autocast_enabled(device)
        precision = torch.get_autocast_dtype(device) if mixed else weights[0][1].dtype
        return f"{self._known[1]}-{str(precision).removeprefix('torch.')}"

    @staticmethod
    def _read(file: Path) -> Tensor:
        try:
            return load(file.read_bytes())["tokens"]
        except (SafetensorError, KeyError) as error:
            raise ValueError(
                f"model.encoder.vision_cache: {file} is damaged ({error}); delete it"
            ) from error

    @staticmethod
    def _write(file: Path, tokens: Tensor) -> None:
        write_bytes(file, save({"tokens": tokens.detach().cpu().contiguous()}))


def _hash(weights: Sequence[tuple[str, Tensor]], colours: object) -> str:
    digest = hashlib.blake2b(repr(colours).encode(), digest_size=16)
    for name, weight in weights:
        digest.update(f"{name} {tuple(weight.shape)} {weight.dtype}".encode())
        raw = weight.detach().cpu().contiguous().flatten()
        digest.update(raw.view(torch.uint8).numpy().data)
    return digest.hexdigest()
