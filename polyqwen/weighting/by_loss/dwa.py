"""Dynamic weight average."""

from collections.abc import Mapping

import torch
from torch import Tensor

from polyqwen.weighting.base import Weighting
from polyqwen.weighting.statistics import Decision, Statistics


class DynamicWeightAverage(Weighting):
    """More weight for tasks whose loss falls more slowly (Liu et al., 2019, arXiv 1803.10704).

    ``λ_t = T · softmax_t(r_t / τ)`` with ``r_t = L_t(k − 1) / L_t(k − 2)``, L_t(k) being the mean
    loss of window k. Until a task has been seen in two windows its r is 1. The paper's windows are
    epochs; here they are ``eval_steps`` optimizer steps. With r near 1 and τ = 2 the weights hardly
    leave 1.

    Args:
        static: task -> weight; only the order of tasks matters.
        temperature: τ, > 0; larger is more equal.
        eval_steps: optimizer steps in a window, >= 1.
    """

    needs_bounds = True
    uses_static = False

    last: Tensor  # (T,), NaN before a task was seen

    def __init__(
        self, static: Mapping[str, float], temperature: float = 2.0, eval_steps: int = 100
    ) -> None:
        super().__init__(static, eval_steps)
        self.check(temperature > 0.0, "temperature", temperature, "> 0, e.g. 2")
        self.temperature = temperature
        self.base.fill_(1.0)
        self.register_buffer("last", torch.full_like(self.base, torch.nan))

    def _next(self, statistics: Statistics, old: Tensor) -> Decision:
        active, loss, last = statistics.active, self._excess(statistics.loss), self.last.cpu()
        rate = torch.where(active & ~torch.isnan(last), loss / last, 1.0)
        self.last.copy_(torch.where(active, loss, last))
        drawn = (rate / self.temperature).softmax(0)  # of the active: `scaled` renormalises
        return Decision(
            self.scaled(drawn, active, old),
            f"rates of the last two windows, temperature {self.temperature:g}",
            causes={"rate": torch.where(active, rate, torch.nan)},
        )
