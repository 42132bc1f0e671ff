"""The combination of tasks that comes nearest to the trusted rows' gradient."""

from collections.abc import Mapping

import torch
from torch import Tensor

from polyqwen.weighting.by_gradient.quadratic import nonnegative_minimum
from polyqwen.weighting.by_validation.base import TrustedGradientWeighting
from polyqwen.weighting.common import check
from polyqwen.weighting.gram import Gram


class GradientMatching(TrustedGradientWeighting):
    """``p = argmin_{p ≥ 0} ‖Σ_t p_t u_t − u_v‖² + ρ ‖p‖²``, u the gradients' directions.

    The projection of the trusted gradient on the cone of the tasks' gradients, by non-negative
    least squares: the first-order best step, with nothing to tune but the ridge ρ, which shares
    weight among tasks that say the same (cf. GRAD-MATCH, Killamsetty et al., 2021, arXiv
    2103.00123, for rows). Tasks that do not help get none.

    Args:
        static: as in `TrustedGradientWeighting`, like all others that are not named here.
        gram: likewise.
        ridge: ρ, >= 0.
        smoothing: likewise.
        normalize: likewise.
        eval_steps: likewise.
    """

    def __init__(
        self,
        static: Mapping[str, float],
        gram: Gram,
        ridge: float = 0.1,
        smoothing: float = 0.9,
        normalize: str = "sum_to_T",
        eval_steps: int = 2,
    ) -> None:
        super().__init__(static, gram, smoothing, normalize, eval_steps)
        check(ridge >= 0.0, "ridge", ridge, ">= 0, e.g. 0.1")
        self.ridge = ridge

    def share(self, agreement: Tensor, similarity: Tensor, tasks: Tensor) -> Tensor:
        """(M,)."""
        eye = torch.eye(len(agreement), dtype=agreement.dtype)
        return nonnegative_minimum(similarity + self.ridge * eye, agreement)
