"""Small convex programs, solved exactly: quadratic ones, and the fixed point of fair weights."""

import torch
from torch import Tensor

from polyqwen.weighting.by_gradient.base import cosines

_FLAT = 1e-13  # a slope below this, relative to the largest entry, is rounding


def nonnegative_minimum(matrix: Tensor, linear: Tensor) -> Tensor:
    """``argmin_{x ≥ 0} ½ xᵀ Q x − bᵀ x`` by active sets (Lawson and Hanson, 1974).

    Exact up to rounding: one linear system per change of the set of positive unknowns. Among
    several minima, unknowns with equal rows and equal b share their sum equally.

    Args:
        matrix: Q, (M, M), positive semi-definite.
        linear: b, (M,), in the range of Q where Q is singular, else there is no minimum.
    """
    x, positive = torch.zeros_like(linear), torch.zeros_like(linear, dtype=torch.bool)
    flat = _FLAT * float(torch.maximum(matrix.abs().max(), linear.abs().max()))
    for _ in range(10 * len(x)):  # far more than it takes; ends a cycle made by rounding
        slope = torch.where(positive, -torch.inf, linear - matrix @ x)
        steepest = int(slope.argmax())
        if not float(slope[steepest]) > flat:
            break
        positive[steepest] = True
        x = _inner_minimum(matrix, linear, x, positive)
    return _shared(matrix, linear, x)


def _inner_minimum(matrix: Tensor, linear: Tensor, x: Tensor, positive: Tensor) -> Tensor:
    """The minimum over the ``positive`` unknowns, dropping those that would turn negative."""
    while bool(positive.any()):
        inner = positive.nonzero().flatten()
        target = torch.zeros_like(x)
        block = matrix[inner][:, inner]
        target[inner] = torch.linalg.pinv(block, hermitian=True) @ linear[inner]
        if bool((target[inner] > 0.0).all()):
            return target
        blocked = positive & (target <= 0.0)
        steps = torch.where(blocked, x / (x - target), torch.inf)
        x = x + steps.min().nan_to_num(0.0) * (target - x)
        positive &= ~(blocked & (steps == steps.min())) & ~steps.isnan()
        x = torch.where(positive, x, 0.0)
    return torch.zeros_like(x)


def _shared(matrix: Tensor, linear: Tensor, x: Tensor) -> Tensor:
    """The same sum and product with Q, spread over unknowns that nothing tells apart."""
    near = 1e-12 * matrix.abs().max()
    same = ((matrix[:, None] - matrix[None, :]).abs().amax(-1) <= near) & (
        (linear[:, None] - linear[None, :]).abs() <= near
    )
    weights = same.to(x)
    return weights @ x / weights.sum(1)


def shortest(gram: Tensor) -> Tensor:
    """``argmin_w ‖Σ_t w_t g_t‖`` with w ≥ 0 and Σ w = 1: the min-norm point of the convex hull.

    With ``C`` the cosines, ``a_t = ‖g_min‖ / ‖g_t‖`` and ``u_t ∝ w_t ‖g_t‖``, minimising ``uᵀ C u +
    (aᵀ u − 1)²`` over u ≥ 0 gives the same w up to its sum, and stays well conditioned when norms
    differ by many orders of magnitude. Two gradients have a closed form.

    Args:
        gram: (M, M), inner products of the g_t.
    """
    if len(gram) == 2:
        return _shorter(gram)
    norms, unit = cosines(gram)
    least = norms.min()
    if float(least) == 0.0:
        zero = (norms == 0.0).to(gram)
        return zero / zero.sum()
    near = least / norms
    point = nonnegative_minimum(unit + near[:, None] * near[None, :], near)
    weights = point * near
    return weights / weights.sum()


def _shorter(gram: Tensor) -> Tensor:
    """Of two: ``w_1 = g_2 · (g_2 − g_1) / ‖g_2 − g_1‖²`` and likewise w_2, within [0, 1]."""
    (first, inner), (_, second) = gram.tolist()
    apart = first + second - 2.0 * inner
    if apart <= 1e-14 * (first + second):
        return gram.new_tensor([0.5, 0.5])
    if inner >= min(first, second):  # the shorter one by itself
        return gram.new_tensor([float(first <= second), float(first > second)])
    shares = gram.new_tensor([second - inner, first - inner])  # neither as 1 − the other
    return shares / shares.sum()


RIDGE = 1e-13  # opposite gradients have no fixed point; with this the answer is long but finite


def equilibrium(unit: Tensor, factors: Tensor, power: float) -> Tensor:
    """Solves ``C b = k b^(−p)`` for b > 0 by damped Newton steps.

    It is where the strictly convex ``½ bᵀ C b − Σ k φ(b)``, φ' = b^(−p), is least (φ = log for
    p = 1), so there is one solution, found from any start, to about 1e-13 of the terms that cancel.
    A ridge of 1e-13 is added to C, in case it is singular.

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
        missing = float((slope.abs() / (matrix.abs() @ b + pull)).max())
        if missing < 1e-14 or (missing < 1e-10 and missing >= last):
            break  # there, or as near as rounding lets it
        last = missing
        step = -torch.linalg.solve(matrix + (power * pull / b).diag(), slope)
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
