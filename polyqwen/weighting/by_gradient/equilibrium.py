"""The fixed point of fair weights: ``C b = k · b^(−p)``, b > 0."""

import torch
from torch import Tensor

RIDGE = 1e-13  # opposite gradients have no fixed point; with this the answer is long but finite


def equilibrium(unit: Tensor, factors: Tensor, power: float) -> Tensor:
    """Solves ``C b = k b^(−p)`` for b > 0 by damped Newton steps.

    It is where the strictly convex ``½ bᵀ C b − Σ k φ(b)``, φ' = b^(−p), is least (φ = log for
    p = 1), so there is one solution, found from any start. Residuals end near 1e-13 of each term
    where C is not singular; to a singular C a ridge of 1e-13 is added.

    Args:
        unit: C, (M, M), positive semi-definite with ones on the diagonal.
        factors: k, (M,), > 0.
        power: p > 0.
    """
    matrix = unit + RIDGE * torch.eye(len(unit), dtype=unit.dtype)
    b = factors ** (1.0 / (1.0 + power))  # the solution for orthogonal gradients …
    ray = (factors * b ** (1.0 - power)).sum() / (b @ matrix @ b)
    b = b * ray ** (1.0 / (1.0 + power))  # … and the best point on the ray through it
    last = torch.inf
    for _ in range(500):
        pull = factors * b**-power
        slope = matrix @ b - pull
        step = -torch.linalg.solve(matrix + (power * pull / b).diag(), slope)
        decrease = -float(slope @ step) / float(b @ pull)  # about the square of what is missing
        if decrease < 1e-30 or (decrease < 1e-20 and decrease > 0.25 * last):
            break  # there, or as near as rounding lets it
        last = decrease
        b = b + _length(matrix, factors, power, b, step, -float(slope @ step)) * step
    return b


def _length(
    matrix: Tensor, factors: Tensor, power: float, b: Tensor, step: Tensor, decrease: float
) -> float:
    """How far to go along a Newton step: all the way where that helps, never out of b > 0."""
    length = min(1.0, 0.9 / max(float((-step / b).max()), 1e-300))
    before = _potential(matrix, factors, power, b)
    rounding = 1e-14 * abs(before)
    while length > 1e-6:
        after = _potential(matrix, factors, power, b + length * step)
        if after <= before - 0.25 * length * decrease + rounding:
            break
        length /= 2.0
    return length


def _potential(matrix: Tensor, factors: Tensor, power: float, b: Tensor) -> float:
    gain = b.log() if power == 1.0 else b ** (1.0 - power) / (1.0 - power)
    return float(0.5 * b @ matrix @ b - (factors * gain).sum())
