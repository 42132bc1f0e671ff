"""What is summed up over a window of steps."""

from typing import NamedTuple

import torch
from torch import Tensor


class WindowSums(NamedTuple):
    """Sums over the rows or the micro-batches of a window, (T,) each.

    Attributes:
        loss: of loss · rows.
        relative: of loss / chance level · rows.
        rows: behind them.
        batches: micro-batches in which the task was present.
        skipped: micro-batches left out because their loss was not finite.
    """

    loss: Tensor
    relative: Tensor
    rows: Tensor
    batches: Tensor
    skipped: Tensor


def sums_of(losses: Tensor, counts: Tensor, chance: Tensor) -> WindowSums:
    """One micro-batch's part; arguments as in `Weighting.observe`, in the window's precision."""
    present, finite = counts > 0, torch.isfinite(losses)
    kept = present & finite
    rows = torch.where(kept, counts, 0.0)
    loss = torch.where(kept, losses, 0.0)  # before the product: NaN · 0 is NaN
    relative = torch.where(chance > 0, loss / chance.clamp_min(1e-12), loss)
    return WindowSums(loss * rows, relative * rows, rows, kept, present & ~finite)
