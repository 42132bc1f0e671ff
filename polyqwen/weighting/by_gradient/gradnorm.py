"""GradNorm: weights learned so that all tasks train at similar rates."""

from typing import Literal, Unpack

import torch
from torch import Tensor

from polyqwen.weighting.adam import AdamRule
from polyqwen.weighting.by_gradient.base import causes, with_gradient
from polyqwen.weighting.gram import Gram
from polyqwen.weighting.normalized import NormalizedArguments, NormalizedWeighting
from polyqwen.weighting.statistics import Decision, Statistics


class GradNorm(NormalizedWeighting):
    """Gradient norms are pulled towards a common size, larger for tasks that lag behind.

    With ``n_t = ‖w_t g_t‖`` and the loss ratio ``l_t / l_t(first)``, r_t being it divided by its
    mean, the weights descend on ``Σ_t |n_t − stop(n̄ r_t^α)|``, whose gradient is ``sign(n_t − n̄
    r_t^α) · ‖g_t‖``; then they are scaled (Chen et al., "GradNorm", 2018, arXiv:1711.02257). As in
    the paper they change after the step that they were learned from.

    Deviations: losses are taken above their lower bounds, and the first one of a task is the mean
    of the first window in which it had company; weights start from the static ones, not from 1,
    stay above ``floor``, and a task that is absent or alone keeps its own. The common part at which
    gradients are taken is the Gram matrix's; LibMTL takes all shared parameters.

    Args:
        alpha: how strongly lagging tasks are favoured, >= 0; 0 makes norms equal.
        lr: learning rate of the weights, > 0.
        optimizer: "adam" (steps of about ``lr``, whatever the size of gradients) or "sgd" (the
            plain rule, ``lr`` in units of weight per norm).
        floor: least weight before scaling, in (0, 1).
        normalize: "sum_to_T" (paper) scales the weights of tasks that took part to sum to their
            number; "none" lets them drift.
        shared: the other arguments of `NormalizedWeighting`.

    Raises:
        ValueError: an argument is out of range.
    """

    needs_bounds = True

    first: Tensor  # (T,) first losses, 0 where there was none yet

    def __init__(
        self,
        *,
        gram: Gram,
        alpha: float = 1.5,
        lr: float = 0.025,
        optimizer: Literal["adam", "sgd"] = "adam",
        floor: float = 1e-3,
        **shared: Unpack[NormalizedArguments],
    ) -> None:
        super().__init__(**shared)
        self.check(alpha >= 0.0, "alpha", alpha, ">= 0, e.g. 1.5")
        self.check(lr > 0.0, "lr", lr, "> 0, e.g. 0.025")
        self.check(optimizer in ("adam", "sgd"), "optimizer", optimizer, "'adam' or 'sgd'")
        self.check(0.0 < floor < 1.0, "floor", floor, "in (0, 1), e.g. 0.001")
        self.gram, self.alpha, self.lr = gram, alpha, lr
        self.floor = floor
        self.register_buffer("first", torch.zeros_like(self.base))
        # norms may be of any size, so nothing but they sets the size of a step
        self.rule = AdamRule(len(self.tasks), lr, epsilon=1e-300) if optimizer == "adam" else None

    def _next(self, statistics: Statistics, old: Tensor) -> Decision:
        products, active = statistics.products, statistics.active
        if products is None or int((used := with_gradient(products.tasks, active)).sum()) < 2:
            return Decision(old, "fewer than two tasks with a gradient")
        losses, first = self._excess(statistics.loss), self.first.cpu()
        first = torch.where(used & (first == 0.0), losses, first)
        self.first.copy_(first)
        ratios = torch.where(used, losses / first, 0.0)
        rates = ratios / ratios[used].mean()  # r_t
        norms = products.tasks.diagonal().sqrt()
        aims = (old * norms)[used].mean() * rates**self.alpha
        slope = torch.sign(old * norms - aims) * norms
        new = old - self.lr * slope if self.rule is None else self.rule.step(old, slope, used)
        new = self.scaled(new.clamp_min(self.floor), used, old)
        shown = causes(products.tasks, used)
        shown["training_rate"] = torch.where(used, rates, torch.nan)
        notes = dict.fromkeys(self._named(old, active & ~used), "no gradient")
        return Decision(new, f"GradNorm, alpha {self.alpha:g}", notes, shown)
