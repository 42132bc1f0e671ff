"""Static weights found by the run itself."""

from collections.abc import Mapping

import torch
from torch import Tensor

from polyqwen.weighting.base import Weighting
from polyqwen.weighting.statistics import Decision, Statistics


class CalibratedWeighting(Weighting):
    """Inverse mean losses of each task's first steps, then frozen.

    ``λ_t = T · (1 / l_t) / Σ_s (1 / l_s)``, l_t being the mean loss per row over the first
    ``steps`` windows in which task t was present. Before all tasks have that many, the given static
    weights hold. A window is one optimizer step until the weights are frozen.

    Args:
        static: task -> weight until then, > 0.
        steps: optimizer steps to collect of each task, >= 1.
        loss_floor: smallest mean loss to divide by, > 0.
        eval_steps: optimizer steps between updates once the weights are frozen, >= 1.

    Raises:
        ValueError: ``steps`` or ``loss_floor`` is out of range.
    """

    needs_bounds = True

    total: Tensor  # (T,)
    rows: Tensor  # (T,)
    steps_seen: Tensor  # (T,)
    frozen: Tensor  # ()

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
        self.steps, self.loss_floor = steps, loss_floor
        self.register_buffer("total", torch.zeros_like(self.base))
        self.register_buffer("rows", torch.zeros_like(self.base))
        self.register_buffer("steps_seen", torch.zeros_like(self.base, dtype=torch.int64))
        self.register_buffer("frozen", torch.tensor(False))

    def due(self, step: int) -> bool:
        """After every optimizer step, until the weights are frozen."""
        return not bool(self.frozen) or super().due(step)

    def _next(self, statistics: Statistics, old: Tensor) -> Decision | None:
        if self.frozen:
            return Decision(old, "calibrated weights, frozen")
        due = (self.steps_seen.cpu() < self.steps) & statistics.active
        rows = torch.where(due, statistics.rows, 0.0)
        self.total += (self._excess(statistics) * rows).to(self.total)
        self.rows += rows.to(self.rows)
        self.steps_seen += due.to(self.steps_seen)
        if int(self.steps_seen.min()) < self.steps:
            return None
        self.frozen.fill_(True)
        inverse = 1.0 / (self.total / self.rows).cpu().clamp_min(self.loss_floor)
        new = inverse * len(self.tasks) / inverse.sum()
        return Decision(new, f"inverse mean losses of {self.steps} steps per task, now frozen")
