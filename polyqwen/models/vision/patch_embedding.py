"""The Qwen-VL models' patch embedding on uint8 patches: one matrix product."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Colour = tuple[float, float, float]
# mean and standard deviation of CLIP's training pictures, as in Qwen2-VL's processor
IMAGE_MEAN = (0.48145466, 0.4578275, 0.40821073)
IMAGE_STD = (0.26862954, 0.26130258, 0.27577711)
# storage, version, type and device of the parameters that were folded
Stamp = tuple[tuple[int, int, torch.dtype, torch.device], ...]


class PatchEmbedding(nn.Module):
    """Normalisation and patch embedding of one frame as one affine map of uint8 patches.

    y = W ((x − μ) / σ) + b = (W / σ) x + b − (W / σ) μ

    The convolution's stride equals its kernel, so it is a matrix product, and a CPU runs that
    several times faster than Conv3d. A still picture repeats its frame, so the kernel may be summed
    over time. Numbers up to 255 are exact in bf16, where x − μ is not. The folded weight of a
    frozen tower is kept as long as the weight stays the same; that of a trained one is made anew
    in the graph. The parameters keep their names and shapes (``proj.weight`` and, where the model
    has one, ``proj.bias``): checkpoints load unchanged.

    Args:
        convolution: the Hugging Face module's ``proj``.
        mean: μ by colour, in [0, 1], as in the model's own processor.
        std: σ, > 0.
    """

    def __init__(
        self, convolution: nn.Conv3d, mean: Colour = IMAGE_MEAN, std: Colour = IMAGE_STD
    ) -> None:
        super().__init__()
        self.proj = convolution
        self.mean, self.std = mean, std
        self._kept: tuple[Stamp, tuple[Tensor, Tensor]] | None = None

    def forward(self, patches: Tensor) -> Tensor:
        """(P, 3 · patch²) uint8 -> (P, vision width)."""
        weight, bias = self.folded()
        return F.linear(patches.to(weight.dtype), weight, bias)

    def folded(self) -> tuple[Tensor, Tensor]:
        """W / σ, (width, 3 · patch²), and b − (W / σ) μ, (width,)."""
        parameters = list(self.proj.parameters())
        if any(p.requires_grad for p in parameters):
            return self._fold()
        # in-place changes (optimizers, checkpoints) raise the version, moves change the storage
        stamp = tuple((p.data_ptr(), p._version, p.dtype, p.device) for p in parameters)
        if self._kept is None or self._kept[0] != stamp:
            self._kept = (stamp, self._fold())
        return self._kept[1]

    def _fold(self) -> tuple[Tensor, Tensor]:
        weight = self.proj.weight
        # plain numbers: buffers would be rounded by a move to bf16, new tensors wait for the device
        colours = weight.float().sum(2).unbind(1)  # 3 × (width, patch, patch)
        frames = [c / (255.0 * std) for c, std in zip(colours, self.std, strict=True)]
        frame = torch.stack(frames, dim=1)  # (width, 3, patch, patch)
        means = [255.0 * m * f.flatten(1).sum(1) for m, f in zip(self.mean, frames, strict=True)]
        bias = -torch.stack(means).sum(0)  # (width,)
        if self.proj.bias is not None:
            bias = bias + self.proj.bias.float()
        return frame.flatten(1).to(weight.dtype), bias.to(weight.dtype)


def check_patch_size(patch_size: int, config: Any) -> None:
    """Raises ValueError unless the data will cut pictures as the model reads them."""
    wanted = config.vision_config.patch_size
    if wanted != patch_size:
        raise ValueError(
            f"model.encoder.patch_size is {patch_size}, but the model reads patches of {wanted} "
            f"pixels; set model.encoder.patch_size={wanted}"
        )
