"""Fast adaptive multitask optimisation."""

from typing import Unpack

import torch
from torch import Tensor

from polyqwen.weighting.adam import AdamRule
from polyqwen.weighting.normalized import NormalizedArguments, NormalizedWeighting
from polyqwen.weighting.statistics import Decision, Statistics


class FAMO(NormalizedWeighting):
    """Equal *relative* progress of all tasks (Liu et al., 2023, arXiv 2306.03792).

    ``λ_t = c · z_t / (l_t − b_t)`` with ``z = softmax(ξ)``, b the losses' lower bounds and c such
    that Σ λ = 1. After the step ``δ_t = log(l_t before) − log(l_t after)`` tells how much each task
    gained, and Adam moves ξ along ``z_t (δ_t − Σ_s z_s δ_s)``, away from those that gained most.

    "After" is a second forward pass over the same rows, without a graph. Without it, or when
    gradients are accumulated, the next step's losses stand in for it, on other rows (lag 1).

    Args:
        learning_rate: of ξ, > 0.
        decay: of ξ towards 0, >= 0.
        second_forward: whether to look at the same rows again.
        normalize: "sum_to_T", or "none" for weights that sum to 1.
        shared: the other arguments of `NormalizedWeighting`.
    """

    in_step = True
    uses_static = False
    needs_bounds = True

    xi: Tensor  # (T,)
    before: Tensor  # (T,) log losses that wait for their "after", NaN where there is none

    def __init__(
        self,
        *,
        learning_rate: float = 0.025,
        decay: float = 1e-3,
        second_forward: bool = True,
        **shared: Unpack[NormalizedArguments],
    ) -> None:
        super().__init__(**shared)
        self.second_forward = second_forward
        self.rule = AdamRule(len(self.tasks), learning_rate, decay)
        self.register_buffer("xi", torch.zeros_like(self.base))
        self.register_buffer("before", torch.full_like(self.base, torch.nan))

    @property
    def needs_after(self) -> bool:
        """Whether `observe_after` must be called after each step."""
        return self.second_forward and self.lag == 0

    def observe_after(self, losses: Tensor) -> None:
        """Moves ξ by what the step did to the losses of its own rows, (T,), NaN where absent."""
        self._learn((losses.detach().cpu().double() - self.lower_bounds).clamp_min(1e-12).log())

    def _next(self, statistics: Statistics, old: Tensor) -> Decision:
        active, loss = statistics.active, self._excess(statistics.loss)
        now = torch.where(active, loss.log(), torch.nan)
        if not self.needs_after:
            self._learn(now)
        self.before.copy_(now)
        xi = self.xi.cpu()
        z = torch.where(active, xi, -torch.inf).softmax(0) if active.any() else old
        weights = z / loss
        if self.normalize == "none":
            weights = weights / weights[active].sum()
        return Decision(
            self.scaled(weights, active, old),
            "relative progress",
            causes={"xi": xi, "share": torch.where(active, z, torch.nan)},
        )

    def _learn(self, after: Tensor) -> None:
        gain = self.before.cpu() - after
        known = torch.isfinite(gain)
        if int(known.sum()) > 1:
            xi = self.xi.cpu()
            z = torch.where(known, xi, -torch.inf).softmax(0)
            gain = torch.where(known, gain, 0.0)
            self.xi.copy_(self.rule.step(xi, z * (gain - (z * gain).sum()), known))
        self.before.fill_(torch.nan)
