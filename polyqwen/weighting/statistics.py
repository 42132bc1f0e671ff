"""What is summed over a window of steps, what a strategy is told, and what it answers."""

from typing import NamedTuple

import torch
from torch import Tensor

from polyqwen.weighting.gram import Products


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

    @property
    def mean_loss(self) -> Tensor:
        """Mean loss per row, 0 where absent."""
        return self.loss * (1.0 / self.rows.clamp_min(1.0))

    @property
    def mean_relative(self) -> Tensor:
        """Mean of loss / chance level per row, 0 where absent."""
        return self.relative * (1.0 / self.rows.clamp_min(1.0))


def sums_of(losses: Tensor, counts: Tensor, chance: Tensor) -> WindowSums:
    """One micro-batch's part; arguments as in `Weighting.observe`, in the window's precision."""
    present, finite = counts > 0, torch.isfinite(losses)
    kept = present & finite
    rows = torch.where(kept, counts, 0.0)
    loss = torch.where(kept, losses, 0.0)  # before the product: NaN · 0 is NaN
    relative = torch.where(chance > 0, loss / chance.clamp_min(1e-12), loss)
    return WindowSums(loss * rows, relative * rows, rows, kept, present & ~finite)


class Statistics(NamedTuple):
    """What is known at an update, over all ranks; float64 on the CPU, (T,) where nothing is said.

    Attributes:
        step: absolute optimizer step of the update.
        loss: mean loss per row, 0 where absent.
        relative: mean of loss / chance level, 0 where absent.
        rows: rows behind them.
        skipped: micro-batches left out because their loss was not finite.
        products: of the tasks' gradients; None unless the strategy has a Gram matrix and two tasks
            were present.
        trusted: mean loss of the trusted rows; None unless asked for.
        features: what the step's batch looks like, a few numbers; None unless asked for.
    """

    step: int
    loss: Tensor
    relative: Tensor
    rows: Tensor
    skipped: Tensor
    products: Products | None = None
    trusted: Tensor | None = None
    features: Tensor | None = None

    @property
    def active(self) -> Tensor:
        """Tasks with rows, (T,) bool; absent is not the same as a loss of zero."""
        return self.rows > 0


class Decision(NamedTuple):
    """A strategy's answer.

    Attributes:
        weights: (T,) new base weights.
        reason: why these, in words.
        notes: task -> what was special about it.
        causes: name -> (T,) numbers that led there, NaN where a task has none; they are logged.
    """

    weights: Tensor
    reason: str
    notes: dict[str, str] = {}  # noqa: RUF012  (replaced, never changed)
    causes: dict[str, Tensor] = {}  # noqa: RUF012


def trusted_loss_left(statistics: Statistics, lower_bounds: Tensor, first: Tensor) -> Tensor:
    """``p_t = v_t / v_t(first)``, v_t the trusted rows' loss above its lower bound: (T,).

    NaN for tasks that are not in training now or have no trusted rows.

    Args:
        statistics: of the update.
        lower_bounds: (T,).
        first: (T,) buffer of v at each task's first update, NaN before; it is filled here.
    """
    if statistics.trusted is None:
        return torch.full_like(lower_bounds, torch.nan)
    value = (statistics.trusted - lower_bounds).clamp_min(1e-12)
    value = torch.where(statistics.active & torch.isfinite(value), value, torch.nan)
    known = first.cpu()
    first.copy_(torch.where(torch.isnan(known), value, known))
    return value / first.cpu()
