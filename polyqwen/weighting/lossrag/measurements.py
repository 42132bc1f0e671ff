"""What is measured of the candidate losses: one look, running means, and credit in hindsight."""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

FEWEST = 4.9  # effective number of windows before a correlation means anything: five


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


class Measurement(NamedTuple):
    """One look at M losses, float64 on the CPU; rows of losses that were not looked at are void.

    Attributes:
        looked: (M,) bool.
        norms: (M,) gradient norms, > 0.
        cosines: (M, M) of the gradients with each other.
        agreement: (M,) r, their cosines with the trusted rows' gradient.
        loss: (M,) mean losses above their lower bounds, > 0.
        trusted: log of the trusted rows' mean loss above its bound; NaN if unknown.
        share: (M,) of the losses in the steps since the last look.
        progress: step / total steps, in [0, 1].
    """

    looked: Tensor
    norms: Tensor
    cosines: Tensor
    agreement: Tensor
    loss: Tensor
    trusted: float
    share: Tensor
    progress: float


def log_level(trusted: Tensor | None, lower_bounds: Tensor, judges: Tensor) -> float:
    """Log of the mean over judging losses of what they are above their bounds on trusted rows.

    Args:
        trusted: (M,), NaN where a loss has no trusted rows; None if there are none at all.
        lower_bounds: (M,).
        judges: (M,) bool, the losses that count.

    Returns:
        NaN if it is unknown.
    """
    if trusted is None:
        return math.nan
    excess = (trusted - lower_bounds).clamp_min(1e-12)
    finite = excess[judges & torch.isfinite(excess)]
    return float(finite.mean().log()) if len(finite) else math.nan


class RealisedCredit(nn.Module):
    """Correlation, over windows, of a loss's mean share with the fall of the trusted loss.

    The policy's objective looks one small step ahead, which favours losses that pay at once (Wu et
    al., 2018, arXiv 1803.02021). This looks back: per window of updates the mean share p_i and the
    fall ``Δ = log v(start) − log v(end)``, and ``ρ_i = cov(p_i, Δ) / √(var p_i · var Δ)``. Shares
    and progress may also just drift together, so it is one number among others, not a verdict.

    Args:
        losses: their number.
        every: updates in a window, >= 1.
        decay: from window to window.
    """

    share_sum: Tensor  # (M,)
    updates: Tensor  # ()
    start: Tensor  # () log v at the window's start, NaN before the first

    def __init__(self, losses: int, every: int = 10, decay: float = 0.95) -> None:
        super().__init__()
        self.every = every
        self.register_buffer("share_sum", torch.zeros(losses, dtype=torch.float64))
        self.register_buffer("updates", torch.tensor(0))
        self.register_buffer("start", torch.full((), torch.nan, dtype=torch.float64))
        self.of_losses = RunningMean((3, losses), decay)  # p, p², p Δ
        self.of_fall = RunningMean((2,), decay)  # Δ, Δ²

    def observe(self, share: Tensor, trusted: float) -> None:
        """Takes the shares of the last steps, (M,), and the log trusted loss they led to."""
        if not math.isfinite(trusted):
            return
        if math.isnan(float(self.start)):
            self.start.fill_(trusted)
            return
        self.share_sum += share.to(self.share_sum)
        self.updates += 1
        if int(self.updates) < self.every:
            return
        p, fall = self.share_sum.cpu() / self.every, float(self.start) - trusted
        self.of_losses.add(torch.stack([p, p**2, p * fall]))
        self.of_fall.add(torch.tensor([fall, fall**2], dtype=torch.float64))
        self.share_sum.zero_()
        self.updates.zero_()
        self.start.fill_(trusted)

    @property
    def correlation(self) -> Tensor:
        """ρ, (M,), in [−1, 1]; NaN until there are enough windows."""
        p, p_square, product = self.of_losses.mean
        fall, fall_square = self.of_fall.mean
        spread = (p_square - p**2).clamp_min(0.0) * (fall_square - fall**2).clamp_min(0.0)
        rho = ((product - p * fall) / (spread + 1e-12).sqrt()).clamp(-1.0, 1.0)
        return torch.where(self.of_fall.count[0] >= FEWEST, rho, torch.nan)
