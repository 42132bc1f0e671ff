"""The geometric mean of losses."""

import torch
from torch import Tensor

from polyqwen.weighting.normalized import NormalizedWeighting
from polyqwen.weighting.statistics import Decision, Statistics


class GeometricLossStrategy(NormalizedWeighting):
    """Minimises the geometric mean of the losses (GLS; Chennupati et al., 2019, arXiv 1904.08492).

    ``GLS = (Π_t l_t)^(1/T)``, whose gradient is that of ``Σ_t λ_t l_t`` with
    ``λ_t = GLS / (T · l_t)``: every loss counts by its *relative* change, whatever its scale.

    Args:
        normalize: "sum_to_T", or "none" for the exact gradient of GLS.
    """

    in_step = True
    uses_static = False
    needs_bounds = True

    def _next(self, statistics: Statistics, old: Tensor) -> Decision:
        active, loss = statistics.active, self._excess(statistics.loss)
        if not active.any():
            return Decision(old, "no task seen")
        mean = loss[active].log().mean().exp()
        weights = mean / (int(active.sum()) * loss)
        return Decision(
            self.scaled(weights, active, old),
            f"geometric mean {float(mean):.4g}",
            causes={"geometric_mean": torch.where(active, mean, torch.nan)},
        )
