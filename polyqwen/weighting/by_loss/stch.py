"""Smooth Tchebycheff scalarisation."""

from typing import Unpack

import torch
from torch import Tensor

from polyqwen.weighting.normalized import NormalizedArguments, NormalizedWeighting
from polyqwen.weighting.statistics import Decision, Statistics


class SmoothTchebycheff(NormalizedWeighting):
    """Follows the task that is furthest behind, smoothly (STCH).

    Lin et al., 2024 (arXiv 2402.19078). Minimises ``μ · logsumexp_t(log(l_t / n_t) / μ)``, n_t
    being the loss that task t had in the warm-up (its nadir), so
    ``λ_t = softmax_t(log(l_t / n_t) / μ) / l_t``. As μ → 0 it becomes the maximum; at
    μ = 1 it is ``Σ_t l_t / n_t``, with constant weights. During the
    warm-up it minimises ``Σ_t log l_t``; the nadir is a task's mean loss over the second half of
    its warm-up steps.

    Args:
        mu: smoothness μ, > 0; the paper tries 0.01 to 1.
        warmup: steps of each task before its nadir is known, >= 1.
        normalize: "sum_to_T", or "none" for T times the exact gradient.
        shared: the other arguments of `NormalizedWeighting`.
    """

    in_step = True
    uses_static = False
    needs_bounds = True

    total: Tensor  # (T,) sum of losses over the second half of the warm-up
    seen: Tensor  # (T,) steps in which the task was present

    def __init__(
        self, *, mu: float = 0.5, warmup: int = 50, **shared: Unpack[NormalizedArguments]
    ) -> None:
        super().__init__(**shared)
        self.check(mu > 0.0, "mu", mu, "> 0, e.g. 1")
        self.check(warmup >= 1, "warmup", warmup, ">= 1")
        self.mu, self.warmup = mu, warmup
        self.register_buffer("total", torch.zeros_like(self.base))
        self.register_buffer("seen", torch.zeros_like(self.base))

    def _next(self, statistics: Statistics, old: Tensor) -> Decision:
        active, loss, seen = statistics.active, self._excess(statistics.loss), self.seen.cpu()
        first, last = self.warmup // 2, self.warmup  # steps of the second half
        counted = active & (seen >= first) & (seen < last)
        self.total += torch.where(counted, loss, 0.0).to(self.total)
        self.seen += active.to(self.seen)
        ready = active & (self.seen.cpu() > last)
        weights = 1.0 / loss
        behind = (loss * (last - first) / self.total.cpu()).log()
        if ready.any():
            soft = torch.where(ready, behind / self.mu, -torch.inf).softmax(0)
            weights = torch.where(ready, int(ready.sum()) * soft / loss, weights)
        return Decision(
            self.scaled(weights, active, old),
            f"{int(ready.sum())} of {int(active.sum())} tasks past the warm-up, mu {self.mu:g}",
            causes={"behind": torch.where(ready, behind, torch.nan)},
        )
