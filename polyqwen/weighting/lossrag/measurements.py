"""What one update tells about the candidate losses."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from polyqwen.weighting.by_gradient.base import cosines
from polyqwen.weighting.statistics import Statistics


class Measurement(NamedTuple):
    """One look at M losses, float64 on the CPU; rows of losses that were not looked at are void.

    Attributes:
        looked: (M,) bool.
        norms: (M,) gradient norms, > 0.
        cosines: (M, M) of the gradients with each other.
        agreement: (M,) r, their cosines with the trusted rows' gradient.
        loss: (M,) mean losses above their lower bounds, > 0.
        trusted: log of the trusted rows' mean loss above its bound; NaN if unknown.
        share: (M,) of the losses in the steps since the last look.
        progress: step / total steps, in [0, 1].
    """

    looked: Tensor
    norms: Tensor
    cosines: Tensor
    agreement: Tensor
    loss: Tensor
    trusted: float
    share: Tensor
    progress: float


def measure(
    statistics: Statistics,
    looked: Tensor,
    loss: Tensor,
    trusted: float,
    share: Tensor,
    progress: float,
) -> Measurement:
    """One look, from statistics with a Gram matrix and products; the rest as in `Measurement`."""
    assert statistics.gram is not None and statistics.trusted_products is not None
    norms, unit = cosines(statistics.gram)
    agreement = statistics.trusted_products / statistics.trusted_norm / norms
    return Measurement(looked, norms, unit, agreement, loss, trusted, share, progress)


def log_level(trusted: Tensor | None, lower_bounds: Tensor, judges: Tensor) -> float:
    """Log of the mean over judging losses of what they are above their bounds on trusted rows.

    Args:
        trusted: (M,), NaN where a loss has no trusted rows; None if there are none at all.
        lower_bounds: (M,).
        judges: (M,) bool, the losses that count.

    Returns:
        NaN if it is unknown.
    """
    if trusted is None:
        return math.nan
    excess = (trusted - lower_bounds).clamp_min(1e-12)
    finite = excess[judges & torch.isfinite(excess)]
    return float(finite.mean().log()) if len(finite) else math.nan
