"""The combination of tasks that comes nearest to the trusted rows' gradient."""

from typing import Unpack

import torch
from torch import Tensor

from polyqwen.weighting.by_gradient.solvers import nonnegative_minimum
from polyqwen.weighting.by_validation.base import TrustedArguments, TrustedGradientWeighting


class GradientMatching(TrustedGradientWeighting):
    """``p = argmin_{p ≥ 0} ‖Σ_t p_t u_t − u_v‖² + ρ ‖p‖²``, u the gradients' directions.

    The projection of the trusted gradient on the cone of the tasks' gradients, by non-negative
    least squares: the first-order best step, with nothing to tune but the ridge ρ, which shares
    weight among tasks that say the same (cf. GRAD-MATCH, Killamsetty et al., 2021, arXiv
    2103.00123, for rows). Tasks that do not help get none.

    Args:
        ridge: ρ, >= 0.
        shared: arguments of `TrustedGradientWeighting`.
    """

    def __init__(self, *, ridge: float = 0.1, **shared: Unpack[TrustedArguments]) -> None:
        super().__init__(**shared)
        self.check(ridge >= 0.0, "ridge", ridge, ">= 0, e.g. 0.1")
        self.ridge = ridge

    def share(self, agreement: Tensor, similarity: Tensor, tasks: Tensor) -> Tensor:
        """(M,)."""
        eye = torch.eye(len(agreement), dtype=agreement.dtype)
        return nonnegative_minimum(similarity + self.ridge * eye, agreement)
