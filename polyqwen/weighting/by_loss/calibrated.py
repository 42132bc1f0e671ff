"""Static weights found by the run itself."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from polyqwen.weighting.base import Weighting
from polyqwen.weighting.statistics import Decision, Statistics


class Calibration(nn.Module):
    """Mean losses of each task's first optimizer steps, and the weights that level them.

    ``λ_t = T · (1 / l_t) / Σ_s (1 / l_s)``, l_t being the mean loss per row over the first
    ``steps`` optimizer steps in which task t was present.

    Args:
        tasks: T, their number.
        steps: optimizer steps to collect of each task, >= 1.
        loss_floor: smallest mean loss to divide by, > 0.
    """

    total: Tensor  # (T,) of loss · rows
    rows: Tensor  # (T,)
    steps_seen: Tensor  # (T,)

    def __init__(self, tasks: int, steps: int, loss_floor: float) -> None:
        super().__init__()
        self.steps, self.loss_floor = steps, loss_floor
        for name in ("total", "rows"):
            self.register_buffer(name, torch.zeros(tasks, dtype=torch.float64))
        self.register_buffer("steps_seen", torch.zeros(tasks, dtype=torch.int64))

    @property
    def complete(self) -> bool:
        """Whether each task has had its steps."""
        return int(self.steps_seen.min()) >= self.steps

    def collect(self, loss: Tensor, rows: Tensor) -> None:
        """Adds one optimizer step; a task that has had its steps is left as it is.

        Args:
            loss: (T,) mean losses above their lower bounds, over all ranks.
            rows: (T,) behind them, 0 where a task is absent.
        """
        due = (self.steps_seen.cpu() < self.steps) & (rows > 0)
        rows = torch.where(due, rows, 0.0)
        self.total += (loss * rows).to(self.total)
        self.rows += rows.to(self.rows)
        self.steps_seen += due.to(self.steps_seen)

    def weights(self) -> Tensor:
        """λ, (T,) on the CPU; meaningful when `complete`."""
        inverse = 1.0 / (self.total / self.rows).cpu().clamp_min(self.loss_floor)
        return inverse * len(inverse) / inverse.sum()


class CalibratedWeighting(Weighting):
    """Inverse mean losses of each task's first steps, then frozen; see `Calibration`.

    Before all tasks have had their steps, the given static weights hold. A window is one optimizer
    step until the weights are frozen.

    Args:
        static: task -> weight until then, > 0.
        steps: optimizer steps to collect of each task, >= 1.
        loss_floor: smallest mean loss to divide by, > 0.
        eval_steps: optimizer steps between updates once the weights are frozen, >= 1.

    Raises:
        ValueError: ``steps`` or ``loss_floor`` is out of range.
    """

    needs_bounds = True

    def __init__(
        self,
        static: Mapping[str, float],
        steps: int = 40,
        loss_floor: float = 1e-3,
        eval_steps: int = 100,
    ) -> None:
        super().__init__(static, eval_steps)
        self.check(steps >= 1, "steps", steps, ">= 1 (0 would be static)")
        self.check(loss_floor > 0.0, "loss_floor", loss_floor, "> 0, e.g. 1e-3")
        self.calibration = Calibration(len(static), steps, loss_floor)

    def due(self, step: int) -> bool:
        """After every optimizer step, until the weights are frozen."""
        return not self.calibration.complete or super().due(step)

    def _next(self, statistics: Statistics, old: Tensor) -> Decision | None:
        if self.calibration.complete:
            return Decision(old, "calibrated weights, frozen")
        self.calibration.collect(self._excess(statistics.loss), statistics.rows)
        if not self.calibration.complete:
            return None
        steps = self.calibration.steps
        reason = f"inverse mean losses of {steps} steps per task, now frozen"
        return Decision(self.calibration.weights(), reason)
