"""Running means that start without a bias, and the scale of numbers that is learnt on the way."""

import torch
from torch import Tensor, nn


class RunningMean(nn.Module):
    """Exponential moving means, each over the updates at which its value was known.

    ``m = Σ_k λ^k x_k / Σ_k λ^k`` with k updates ago; a NaN counts for nothing. ``count`` is Kish's
    effective number of values, ``(Σ λ^k)² / Σ λ^2k``: 1 after the first, (1 + λ) / (1 − λ) at last.

    Args:
        shape: of what is averaged.
        decay: λ, in [0, 1].
    """

    total: Tensor
    weight: Tensor
    square_weight: Tensor

    def __init__(self, shape: tuple[int, ...], decay: float = 0.9) -> None:
        super().__init__()
        self.decay = decay
        for name in ("total", "weight", "square_weight"):
            self.register_buffer(name, torch.zeros(shape, dtype=torch.float64))

    def add(self, values: Tensor) -> None:
        """Takes the next values; NaN where there is none, which leaves that mean as it is."""
        known = ~torch.isnan(values)
        for buffer, decay, news in (
            (self.total, self.decay, values),
            (self.weight, self.decay, torch.ones_like(values)),
            (self.square_weight, self.decay**2, torch.ones_like(values)),
        ):
            old = buffer.cpu()
            buffer.copy_(torch.where(known, decay * old + news, old))

    @property
    def mean(self) -> Tensor:
        """The means, on the CPU; NaN where nothing was seen."""
        return self.total.cpu() / self.weight.cpu()

    @property
    def count(self) -> Tensor:
        """Effective numbers of values; 0 where nothing was seen."""
        weight = self.weight.cpu()
        return torch.where(weight > 0.0, weight**2 / self.square_weight.cpu(), 0.0)

    def restart(self, where: Tensor) -> None:
        """Forgets what is ``where``, a mask over the first dimensions."""
        for buffer in (self.total, self.weight, self.square_weight):
            buffer[where.to(buffer.device)] = 0.0


class RunningScale(nn.Module):
    """``z = (x − μ) / √(σ² + 1e-4)``, clipped to ±3, with running μ and σ of each number.

    The 1e-4 keeps a number that is all but constant from being blown up to its rounding errors.

    Args:
        size: how many numbers.
        decay: of μ and σ² from update to update.
    """

    def __init__(self, size: int, decay: float = 0.99) -> None:
        super().__init__()
        self.moments = RunningMean((2, size), decay)  # of x and x²

    def add(self, values: Tensor) -> None:
        """Takes rows of numbers, (N, size), of one update together; NaN where unknown."""
        self.moments.add(torch.stack([values.nanmean(0), (values**2).nanmean(0)]))

    def __call__(self, values: Tensor) -> Tensor:
        """z of (…, size); 0, the mean, where the value or the scale is unknown."""
        mean, square = self.moments.mean
        variance = (square - mean**2).clamp_min(0.0)
        return ((values - mean) / (variance + 1e-4).sqrt()).clamp(-3.0, 3.0).nan_to_num(0.0)
