"""Weights from how the trusted rows fare."""

from collections.abc import Mapping

import torch
from torch import Tensor

from polyqwen.weighting.base import Weighting
from polyqwen.weighting.statistics import Decision, Statistics, trusted_loss_left


class ValidationWeighting(Weighting):
    """More weight for tasks that have learnt less on rows they do not train on.

    ``λ = M · softmax(p / τ)`` with ``p_t = v_t / v_t(first)``, v_t the loss of task t's trusted
    rows above its lower bound and M the tasks in training: dynamic weight average's idea on
    held-out rows, against the start and not against the last window, so that over-fitting counts
    as not having learnt. Small τ turns all to the task that is furthest behind.

    Args:
        static: task -> weight until the first update, > 0; the order of tasks.
        temperature: τ, > 0.
        eval_steps: optimizer steps between updates, >= 1.
    """

    needs_bounds = True
    needs_trusted = True

    first: Tensor  # (T,) v at a task's first update, NaN before

    def __init__(
        self, static: Mapping[str, float], temperature: float = 0.5, eval_steps: int = 50
    ) -> None:
        super().__init__(static, eval_steps)
        self.check(temperature > 0.0, "temperature", temperature, "> 0, e.g. 0.5")
        self.temperature = temperature
        self.register_buffer("first", torch.full_like(self.base, torch.nan))

    def _next(self, statistics: Statistics, old: Tensor) -> Decision:
        if statistics.trusted is None:
            return Decision(old, "no trusted rows")
        left = trusted_loss_left(statistics, self.lower_bounds, self.first)
        known = ~torch.isnan(left)
        if not known.any():
            return Decision(old, "no task with trusted rows")
        soft = torch.where(known, left / self.temperature, -torch.inf).softmax(0)
        weights = self.scaled(soft, known, old)
        return Decision(weights, "what is left of trusted losses", causes={"left": left})
