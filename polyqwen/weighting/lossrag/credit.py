"""What a loss's share of the steps did for the trusted rows, in hindsight."""

import math

import torch
from torch import Tensor, nn

from polyqwen.weighting.lossrag.running import RunningMean

FEWEST = 4.9  # effective number of windows before a correlation means anything: five


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
