"""Strategic task weighting with learned α and β."""

from typing import Unpack

import torch
from torch import Tensor

from polyqwen.weighting.by_loss.stw import StrategicArguments, StrategicTaskWeighting
from polyqwen.weighting.statistics import Decision, Statistics, trusted_loss_left


class LearnedStrategicTaskWeighting(StrategicTaskWeighting):
    """STW whose α and β follow the losses of trusted rows, which are never trained on.

    The report names learned α and β as future work and gives no rule; this one is ours. With v_t
    the mean loss of task t's trusted rows and ``p_t = v_t / v_t(first)`` what is left of it:

    ``log α_t ← log α_t + η (p_t / p̄ − 1)``: a task that has learnt less than the others, on rows
    that it does not train on, gets more weight; α stays within a factor ``alpha_range`` of its
    start. ``β ← β (1 + η_β)`` if p̄ fell since the last update, ``β (1 − η_β)`` if not, the sign
    rule for step sizes; β stays within ``beta_bounds``, which are ours. With ``beta.mode: loss``
    the learned β has next to no effect, as in `StrategicTaskWeighting`; with "alpha" it moves the
    foundation tasks' α together, with "learning_rate" the learning rate.

    Args:
        alpha_rate: η, >= 0.
        alpha_range: > 1.
        beta_rate: η_β, in [0, 1).
        beta_bounds: smallest and largest β.
        alpha: task -> first factor, > 0.
        beta: as in `StrategicTaskWeighting`; the learned factor multiplies it.
        shared: the other arguments of `StrategicTaskWeighting`.
    """

    needs_trusted = True

    alpha: Tensor  # (T,)
    beta_factor: Tensor  # ()
    first: Tensor  # (T,) v at a task's first update, NaN before
    last_progress: Tensor  # () p̄ at the last update, NaN before

    def __init__(
        self,
        *,
        alpha_rate: float = 0.5,
        alpha_range: float = 4.0,
        beta_rate: float = 0.02,
        beta_bounds: tuple[float, float] = (0.8, 1.2),
        **shared: Unpack[StrategicArguments],
    ) -> None:
        super().__init__(**shared)
        self.check(alpha_rate >= 0.0, "alpha_rate", alpha_rate, ">= 0, e.g. 0.5")
        self.check(alpha_range > 1.0, "alpha_range", alpha_range, "> 1, e.g. 4")
        self.check(0.0 <= beta_rate < 1.0, "beta_rate", beta_rate, "in [0, 1), e.g. 0.02")
        low, high = beta_bounds
        given = (self.beta_schedule.foundation, self.beta_schedule.balance)
        inside = 0.0 < low <= min(given) and max(given) <= high
        self.check(inside, "beta_bounds", beta_bounds, "[low, high] around beta's values")
        self.alpha_rate, self.beta_rate, self.beta_bounds = alpha_rate, beta_rate, (low, high)
        alpha = self.alpha
        del self.alpha
        self.register_buffer("alpha", alpha)
        self.lowest, self.highest = alpha / alpha_range, alpha * alpha_range
        self.register_buffer("beta_factor", torch.ones((), dtype=torch.float64))
        self.register_buffer("first", torch.full_like(self.base, torch.nan))
        self.register_buffer("last_progress", torch.full((), torch.nan, dtype=torch.float64))

    def beta(self, step: int) -> float:
        """The scheduled β times the learned factor, within ``beta_bounds``."""
        low, high = self.beta_bounds
        return min(max(super().beta(step) * float(self.beta_factor), low), high)

    def _next(self, statistics: Statistics, old: Tensor) -> Decision:
        progress = trusted_loss_left(statistics, self.lower_bounds, self.first)
        known = ~torch.isnan(progress)
        if known.any():
            mean = progress[known].mean()
            self._learn_alpha(torch.where(known, progress / mean - 1.0, 0.0))
            self._learn_beta(mean)
        decision = super()._next(statistics, old)
        causes = {"alpha": self.alpha.cpu().clone(), "trusted_progress": progress}
        return decision._replace(causes=causes)

    def _learn_alpha(self, behind: Tensor) -> None:
        moved = self.alpha.cpu() * torch.exp(self.alpha_rate * behind)
        self.alpha.copy_(moved.clamp(self.lowest, self.highest))

    def _learn_beta(self, progress: Tensor) -> None:
        last = float(self.last_progress)
        if last == last:  # not the first time
            better = float(progress) < last
            factor = float(self.beta_factor) * (
                1 + self.beta_rate if better else 1 - self.beta_rate
            )
            low, high = self.beta_bounds
            given = self.beta_schedule
            self.beta_factor.fill_(min(max(factor, low / given.foundation), high / given.balance))
        self.last_progress.copy_(progress)
