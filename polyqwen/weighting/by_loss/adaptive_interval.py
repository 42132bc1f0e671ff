"""An update interval that follows how fast losses move."""

import torch
from torch import Tensor, nn


class AdaptiveInterval(nn.Module):
    """The number of optimizer steps to the next update, doubled or halved at each.

    With ``m = max_t |l_t / l_t' − 1|`` the largest relative change of a task's mean loss from the
    last window to this one: m > ``move`` halves the interval, m < ``settle`` doubles it.

    Args:
        tasks: their number.
        shortest: optimizer steps, >= 1.
        longest: optimizer steps, >= ``shortest``.
        move: relative change, > ``settle``.
        settle: relative change, >= 0.

    Raises:
        ValueError: an argument is out of its range.
    """

    last: Tensor  # (T,) mean losses of the last window, NaN where unseen
    steps: Tensor  # () the interval, 0 before the first update
    next: Tensor  # () the step to update at

    def __init__(
        self, tasks: int, shortest: int, longest: int, move: float = 0.1, settle: float = 0.02
    ) -> None:
        super().__init__()
        if not 1 <= shortest <= longest:
            raise ValueError(
                f"weighting.interval needs 1 <= shortest <= longest, got {shortest}, {longest}"
            )
        if not 0.0 <= settle < move:
            raise ValueError(f"weighting.interval needs 0 <= settle < move, got {settle}, {move}")
        self.shortest, self.longest, self.move, self.settle = shortest, longest, move, settle
        self.register_buffer("last", torch.full((tasks,), torch.nan, dtype=torch.float64))
        self.register_buffer("steps", torch.tensor(0))
        self.register_buffer("next", torch.tensor(0))

    def due(self, step: int) -> bool | None:
        """Whether an update follows optimizer step ``step``; None before the first one."""
        return step + 1 >= int(self.next) if int(self.steps) else None

    def adapt(self, step: int, loss: Tensor, seen: Tensor) -> str:
        """Sets the next update and says why.

        Args:
            step: optimizer steps made so far.
            loss: (T,) mean losses of the window.
            seen: (T,) which of them count.
        """
        last = self.last.cpu()
        known = seen & ~torch.isnan(last)
        change = float((loss / last - 1.0).abs()[known].max()) if known.any() else None
        interval = int(self.steps) or self.shortest
        if change is not None and change > self.move:
            interval = max(self.shortest, interval // 2)
        elif change is not None and change < self.settle:
            interval = min(self.longest, interval * 2)
        self.last.copy_(torch.where(seen, loss, last))
        self.steps.fill_(interval)
        self.next.fill_(step + interval)
        moved = "" if change is None else f"losses moved by {change:.1%}, "
        return f"{moved}next in {interval} steps"
