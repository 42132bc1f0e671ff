"""Exponentiated gradient on how well the step agrees with the trusted rows."""

from typing import Unpack

import torch
from torch import Tensor

from polyqwen.weighting.by_validation.base import TrustedArguments, TrustedGradientWeighting


class ExponentiatedGradient(TrustedGradientWeighting):
    """Ascends ``J(p) = (p · r) / √(pᵀ C p)``, the cosine of the mixed step with the trusted one.

    ``p ← p · exp(η ∂J/∂p)``, normalised, then ``(1 − ε) p + ε / M`` so that no task is lost for
    good (Kivinen and Warmuth, 1997). The plain sum Σ p_t r_t is linear in p and its maximum is a
    single task; the cosine rewards tasks that complement each other.

    Args:
        rate: η, > 0.
        floor: ε, in [0, 1).
        shared: arguments of `TrustedGradientWeighting`.
    """

    mix: Tensor  # (T,) p before the floor, of all tasks

    def __init__(
        self, *, rate: float = 0.2, floor: float = 0.02, **shared: Unpack[TrustedArguments]
    ) -> None:
        super().__init__(**shared)
        self.check(rate > 0.0, "rate", rate, "> 0, e.g. 0.2")
        self.check(0.0 <= floor < 1.0, "floor", floor, "in [0, 1), e.g. 0.02")
        self.rate, self.floor = rate, floor
        self.register_buffer("mix", torch.full_like(self.base, 1.0 / len(self.tasks)))

    def share(self, agreement: Tensor, similarity: Tensor, tasks: Tensor) -> Tensor:
        """(M,); moves p of the tasks that take part, the others' stays."""
        mix = self.mix.cpu()
        own = mix[tasks]
        total = own.sum()
        p = own / total
        moved = p * torch.exp(self.rate * slope(p, agreement, similarity))
        p = moved / moved.sum()
        p = (1.0 - self.floor) * p + self.floor / len(p)
        self.mix.copy_(mix.index_copy(0, tasks, p * total))
        return p


def slope(p: Tensor, agreement: Tensor, similarity: Tensor) -> Tensor:
    """``∂J/∂p = r / q − (p · r) C p / q³`` with ``q = √(pᵀ C p)``: (M,)."""
    along = similarity @ p
    length = float((p @ along).clamp_min(1e-12).sqrt())
    return agreement / length - float(p @ agreement) * along / length**3
