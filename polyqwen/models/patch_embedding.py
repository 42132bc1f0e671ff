"""Qwen2-VL's patch embedding on uint8 patches: one matrix product."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# mean and standard deviation of CLIP's training pictures, as in Qwen2-VL's processor
IMAGE_MEAN = (0.48145466, 0.4578275, 0.40821073)
IMAGE_STD = (0.26862954, 0.26130258, 0.27577711)
# storage, version, type and device of the weight that was folded
Stamp = tuple[int, int, torch.dtype, torch.device]


class PatchEmbedding(nn.Module):
    """Normalisation and patch embedding of one frame as one affine map of uint8 patches.

    y = W ((x − μ) / σ) = (W / σ) x − (W / σ) μ

    The convolution's stride equals its kernel, so it is a matrix product, and a CPU runs that
    several times faster than Conv3d. A still picture repeats its frame, so the kernel may be summed
    over time. Numbers up to 255 are exact in bf16, where x − μ is not. The folded weight of a
    frozen tower is kept as long as the weight stays the same; that of a trained one is made anew
    in the graph. The parameter keeps its name and shape (``proj.weight``): checkpoints load
    unchanged.

    Args:
        convolution: the Hugging Face module's ``proj``.
    """

    def __init__(self, convolution: nn.Conv3d) -> None:
        super().__init__()
        self.proj = convolution
        self._kept: tuple[Stamp, tuple[Tensor, Tensor]] | None = None

    def forward(self, patches: Tensor) -> Tensor:
        """(P, 3 · patch²) uint8 -> (P, vision width)."""
        weight, bias = self.folded()
        return F.linear(patches.to(weight.dtype), weight, bias)

    def folded(self) -> tuple[Tensor, Tensor]:
        """W / σ, (width, 3 · patch²), and −(W / σ) μ, (width,)."""
        weight = self.proj.weight
        if weight.requires_grad:
            return self._fold()
        # in-place changes (optimizers, checkpoints) raise the version, moves change the storage
        stamp = (weight.data_ptr(), weight._version, weight.dtype, weight.device)
        if self._kept is None or self._kept[0] != stamp:
            self._kept = (stamp, self._fold())
        return self._kept[1]

    def _fold(self) -> tuple[Tensor, Tensor]:
        weight = self.proj.weight
        # constants rather than buffers, which a move to bf16 would round
        mean, std = (
            255.0 * torch.tensor(values, device=weight.device)[:, None, None]
            for values in (IMAGE_MEAN, IMAGE_STD)
        )
        frame = weight.float().sum(2) / std  # (width, 3, patch, patch)
        bias = -(frame * mean).flatten(1).sum(1)
        return frame.flatten(1).to(weight.dtype), bias.to(weight.dtype)
