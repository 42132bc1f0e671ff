"""A gate: tasks that would harm the trusted rows are shut out."""

from typing import Unpack

from torch import Tensor

from polyqwen.weighting.by_validation.base import TrustedArguments, TrustedGradientWeighting

MODES = ("cosine", "sign")


class CosineGate(TrustedGradientWeighting):
    """``p_t ∝ max(0, r_t)``, or ``p_t ∝ 1[r_t > 0]`` with ``mode: sign``.

    Du et al., "Adapting Auxiliary Losses Using Gradient Similarity", 2018 (arXiv 1812.02224), where
    the main task's own gradient stands in the place of the trusted rows'. Each task is judged
    alone: two tasks that say the same are both let in.

    Args:
        mode: "cosine" or "sign".
        shared: arguments of `TrustedGradientWeighting`.
    """

    def __init__(self, *, mode: str = "cosine", **shared: Unpack[TrustedArguments]) -> None:
        super().__init__(**shared)
        self.check(mode in MODES, "mode", mode, f"one of {', '.join(MODES)}")
        self.mode = mode

    def share(self, agreement: Tensor, similarity: Tensor, tasks: Tensor) -> Tensor:
        """(M,)."""
        return (
            agreement.clamp_min(0.0) if self.mode == "cosine" else (agreement > 0.0).to(agreement)
        )
