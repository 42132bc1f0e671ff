"""Weights scaled to a sum inside bounds."""

import torch
from torch import Tensor


def scale_within_bounds(weights: Tensor, total: float, low: Tensor, high: Tensor) -> Tensor:
    """Scales weights to a sum; those that would leave their bounds stay at them: (T,).

    ``clamp(c · w_t, low_t, high_t)`` with the one factor c for which the sum is ``total``, so
    weights between their bounds keep their proportions, and without a bound in the way it is
    ``w_t · total / Σ w``. The sum rises with c and is linear between the values of c at which some
    weight meets a bound, so c is found exactly.

    Where the bounds leave no room for ``total`` the nearest sum is taken: all at ``low``, or all at
    ``high``.

    Args:
        weights: (T,) float64, > 0, finite.
        total: what they are to sum to, > 0.
        low: (T,) float64, > 0.
        high: (T,) float64, >= ``low``; may be infinite.
    """
    plain = weights * total / weights.sum()
    if bool(((plain >= low) & (plain <= high)).all()):
        return plain
    high = torch.maximum(high.clamp_max(total), low)  # no weight above the sum; keeps c finite
    knots = torch.cat([low / weights, high / weights]).sort().values  # (2T,) values of c
    sums = (knots[:, None] * weights).clamp(low, high).sum(dim=1)  # (2T,) rising
    right = int((sums < total).sum())  # the first knot with at least the sum
    if right == 0:
        return low.clone()
    if right == len(knots):
        return high
    left = right - 1
    part = (total - sums[left]) / (sums[right] - sums[left])
    scale = knots[left] + part * (knots[right] - knots[left])
    return (scale * weights).clamp(low, high)
