"""The geometric mean of losses."""

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from polyqwen.weighting.base import Weighting
from polyqwen.weighting.scaling import check_normalize, scaled
from polyqwen.weighting.statistics import Decision, Statistics


class GeometricLossStrategy(Weighting):
    """Minimises the geometric mean of the losses (GLS; Chennupati et al., 2019, arXiv 1904.08492).

    ``GLS = (Π_t l_t)^(1/T)``, whose gradient is that of ``Σ_t λ_t l_t`` with
    ``λ_t = GLS / (T · l_t)``: every loss counts by its *relative* change, whatever its scale.

    Args:
        static: task -> weight until the first step; the order of tasks.
        normalize: "sum_to_T", or "none" for the exact gradient of GLS.
        eval_steps: optimizer steps between updates, >= 1.
    """

    in_step: ClassVar[bool] = True
    needs_bounds: ClassVar[bool] = True

    def __init__(
        self, static: Mapping[str, float], normalize: str = "sum_to_T", eval_steps: int = 1
    ) -> None:
        super().__init__(static, eval_steps)
        check_normalize(normalize)
        self.normalize = normalize

    def _next(self, statistics: Statistics, old: Tensor) -> Decision:
        active, loss = statistics.active, self._excess(statistics)
        if not active.any():
            return Decision(old, "no task seen")
        mean = loss[active].log().mean().exp()
        weights = mean / (int(active.sum()) * loss)
        return Decision(
            scaled(weights, active, old, self.normalize),
            f"geometric mean {float(mean):.4g}",
            causes={"geometric_mean": torch.where(active, mean, torch.nan)},
        )
