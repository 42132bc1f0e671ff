"""What strategies share that weigh tasks by the inner products of their gradients."""

from abc import abstractmethod
from typing import Required, Unpack

import torch
from torch import Tensor

from polyqwen.weighting.gram import Gram
from polyqwen.weighting.normalized import NormalizedArguments, NormalizedWeighting
from polyqwen.weighting.statistics import Decision, Statistics

ZERO = 1e-12  # a gradient this much shorter than the longest is none


class GradientArguments(NormalizedArguments):
    """The arguments of `GradientWeighting`, for constructors that hand them on."""

    gram: Required[Gram]


class GradientWeighting(NormalizedWeighting):
    """Weights from a Gram matrix of task gradients, solved anew at each update.

    Tasks that are absent, or whose gradient is zero, take no part and keep their weight; with one
    task left its weight is 1. Weights multiply losses, so one ordinary backward pass follows: the
    step's direction is ``d = Σ_t w_t g_t`` in all parameters, while what the paper promises of d
    holds for the gradients that the Gram matrix was made of. Some strategies give a task a negative
    weight, so scaling counts absolute values.

    Args:
        static: task -> weight until the first update, > 0; the order of tasks.
        gram: where gradients are taken.
        normalize: "sum_to_T" scales the weights so that their absolute values sum to the number of
            tasks that take part; "none" is the paper's own scale.
        eval_steps: optimizer steps between updates, >= 1.
    """

    in_step = True
    uses_static = False

    def __init__(self, *, gram: Gram, **shared: Unpack[NormalizedArguments]) -> None:
        super().__init__(**shared)
        self.gram = gram

    @abstractmethod
    def solve(self, gram: Tensor, tasks: Tensor, step: int) -> Tensor:
        """Weights on the paper's own scale, (M,).

        Args:
            gram: (M, M) float64, positive semi-definite with a positive diagonal, M >= 1.
            tasks: (M,) int64, which tasks these are, for strategies that keep something of each.
            step: absolute optimizer step, for strategies that draw.
        """

    def _next(self, statistics: Statistics, old: Tensor) -> Decision | None:
        if statistics.products is None:  # fewer than two tasks: there is nothing to weigh
            return Decision(torch.where(statistics.active, 1.0, old), "fewer than two tasks")
        gram = statistics.products.tasks
        used = with_gradient(gram, statistics.active)
        if not used.any():
            return Decision(old, "no task has a gradient")
        tasks = used.nonzero().flatten()
        solved = self.solve(gram[tasks][:, tasks], tasks, statistics.step)
        size = float(solved.abs().sum())
        if self.normalize == "sum_to_T" and size > 0.0:
            solved = solved * len(tasks) / size
        new = old.clone().index_copy_(0, tasks, solved)
        notes = dict.fromkeys(self._named(old, statistics.active & ~used), "no gradient")
        return Decision(new, type(self).__name__, notes, causes(gram, used))


def with_gradient(gram: Tensor, active: Tensor) -> Tensor:
    """Tasks present whose gradient is not zero beside the longest, (T,) bool."""
    norms = gram.diagonal().sqrt()
    return active & (norms > ZERO * norms.max())


def cosines(gram: Tensor) -> tuple[Tensor, Tensor]:
    """Norms (T,) and cosines (T, T) of gradients; 0 where a gradient is zero."""
    norms = gram.diagonal().clamp_min(0.0).sqrt()
    safe = torch.where(norms > 0.0, norms, 1.0)
    return norms, gram / safe[:, None] / safe[None, :]  # one by one: a product could underflow


def causes(gram: Tensor, used: Tensor) -> dict[str, Tensor]:
    """For the log: gradient norms, and each task's mean cosine to the others."""
    norms, unit = cosines(gram)
    blank = torch.full_like(norms, torch.nan)
    pairs = (used[:, None] & used[None, :]) & ~torch.eye(len(used), dtype=torch.bool)
    others = pairs.sum(1)
    cosine = (unit * pairs).sum(1) / others
    return {
        "gradient_norm": torch.where(used, norms, blank),
        "cosine": torch.where(used & (others > 0), cosine, blank),
    }
