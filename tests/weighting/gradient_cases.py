"""One row per strategy that works on a Gram matrix, and what their tests share."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from hypothesis import settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torchjd import aggregation

from polyqwen.weighting.base import Weighting
from polyqwen.weighting.by_gradient.aligned_mtl import AlignedMTL
from polyqwen.weighting.by_gradient.base import GradientWeighting
from polyqwen.weighting.by_gradient.cagrad import CAGrad
from polyqwen.weighting.by_gradient.equal_norm import EqualNorm
from polyqwen.weighting.by_gradient.fairgrad import FairGrad
from polyqwen.weighting.by_gradient.gradnorm import GradNorm
from polyqwen.weighting.by_gradient.gradvac import GradVac
from polyqwen.weighting.by_gradient.imtl_g import IMTLG
from polyqwen.weighting.by_gradient.mgda import MGDA
from polyqwen.weighting.by_gradient.nash_mtl import NashMTL
from polyqwen.weighting.by_gradient.pcgrad import PCGrad
from polyqwen.weighting.by_gradient.upgrad import UPGrad
from polyqwen.weighting.gram import FullParameterGram, Gram, Graph
from polyqwen.weighting.weight_update import WeightUpdate

ROOT2 = math.sqrt(2.0)

Solve = Callable[[Tensor], Tensor]


class Row(NamedTuple):
    """A strategy and what holds for it.

    Attributes:
        make: the class.
        orthogonal: weights for gradients (1, 0) and (0, 2).
        conflict: weights for gradients (1, 0) and (-1, 1).
        arguments: of the class.
        degree: k where multiplying all gradients by s multiplies weights by s^k.
        harmless: g_t · d >= 0 for all tasks; "two": with two tasks; "independent": for linearly
            independent gradients.
        ignores_scale: multiplying one task's gradient by a constant leaves d's direction alone.
        any_order: the order of tasks does not matter; some strategies draw it.
        library: the same in TorchJD.
        tolerance: relative to the largest weight.
        spread: largest ratio of norms compared; TorchJD's Frank-Wolfe and least squares are coarse.
    """

    make: type[GradientWeighting]
    orthogonal: tuple[float, float]
    conflict: tuple[float, float] | None
    arguments: dict[str, Any] = {}  # noqa: RUF012
    degree: float = 0.0
    harmless: str = "no"
    ignores_scale: bool = False
    any_order: bool = True
    library: Callable[[], Solve] | None = None
    tolerance: float = 1e-9
    spread: float = 10.0


def imtl_g_of_torchjd(gram: Tensor) -> Tensor:
    """Scaled by the sum of absolute values, and pointing where projections are positive."""
    weights = aggregation.IMTLGWeighting()(gram)
    return weights / weights.abs().sum() * torch.sign((gram @ weights)[0])


INVERSE = (2.0 / math.sqrt(5.0), 1.5 / math.sqrt(5.0))  # of the conflict's Gram matrix' root, · ½
LEAST = (math.sqrt(5.0) - 1.0) / 2.0  # root of its least eigenvalue
ROWS = [
    Row(
        EqualNorm,
        orthogonal=(1.5, 0.75),
        conflict=((1 + ROOT2) / 2, (1 + ROOT2) / 2 / ROOT2),
        ignores_scale=True,
    ),
    Row(
        MGDA,
        orthogonal=(0.8, 0.2),
        conflict=(0.6, 0.4),
        harmless="yes",
        library=lambda: aggregation.MGDAWeighting(epsilon=1e-6, max_iters=2000),
        tolerance=0.1,  # so far it is after 2000 steps; the minimum itself is tested below
        spread=2.0,
    ),
    Row(
        PCGrad,
        orthogonal=(1.0, 1.0),
        conflict=(2.0, 1.5),
        harmless="two",
        any_order=False,
        library=aggregation.PCGradWeighting,
    ),
    Row(
        GradVac,
        orthogonal=(1.0, 1.0),
        conflict=(2.0, 1.5),
        arguments={"beta": 0.5},
        harmless="two",
        any_order=False,
        library=lambda: aggregation.GradVacWeighting(beta=0.5, eps=0.0),
    ),
    Row(  # d = g_0 + r g_1: the first task stays the worst off, in the second case just so
        CAGrad,
        arguments={"c": 0.5},
        orthogonal=(0.5 + math.sqrt(5.0) / 4, 0.5),
        conflict=(0.75, 0.5),
    ),
    Row(
        NashMTL,
        orthogonal=(1.0, 0.5),
        conflict=(1 / math.sqrt(1 - 1 / ROOT2), 1 / math.sqrt(2 - ROOT2)),
        degree=-1.0,
        harmless="yes",
        ignores_scale=True,
        library=lambda: aggregation.FairGradWeighting(alpha=1.0),
        tolerance=1e-5,
    ),
    Row(
        FairGrad,
        arguments={"alpha": 2.0},
        orthogonal=(1.0, 2 ** (-4 / 3)),
        conflict=None,  # no closed form
        degree=-4 / 3,
        harmless="yes",
        library=lambda: aggregation.FairGradWeighting(alpha=2.0),
        tolerance=1e-5,
    ),
    Row(
        IMTLG,
        orthogonal=(2 / 3, 1 / 3),
        conflict=(ROOT2 / (1 + ROOT2), 1 / (1 + ROOT2)),
        harmless="independent",
        ignores_scale=True,
        library=lambda: imtl_g_of_torchjd,
    ),
    Row(
        AlignedMTL,
        orthogonal=(0.5, 0.25),
        conflict=(LEAST * INVERSE[0], LEAST * INVERSE[1]),
        library=aggregation.AlignedMTLWeighting,
    ),
    Row(UPGrad, orthogonal=(0.5, 0.5), conflict=(1.0, 0.75), harmless="yes"),
]
BY_NAME = {row.make.__name__: row for row in ROWS}


def make(row: Row, tasks: int, **changes: Any) -> GradientWeighting:
    static = {f"task{i}": 1.0 for i in range(tasks)}
    return row.make(static=static, gram=FullParameterGram(), **(row.arguments | changes))


def solved(strategy: GradientWeighting, gradients: Tensor, step: int = 0) -> Tensor:
    """Weights on the paper's scale for gradients (T, P)."""
    return strategy.solve(gradients @ gradients.T, torch.arange(len(gradients)), step)


def drawn(seed: int, tasks: int, size: int | None = None, spread: float = 10.0) -> Tensor:
    """Random gradients, their norms a factor of ``spread`` apart at most, roughly: (T, P)."""
    generator = torch.Generator().manual_seed(seed)
    kwargs: dict[str, Any] = {"dtype": torch.float64, "generator": generator}
    rows = torch.randn(tasks, size or tasks + 1, **kwargs)
    rows = rows / rows.norm(dim=1, keepdim=True)
    return rows * spread ** torch.rand(tasks, 1, **kwargs)


def rows_of(number: str = "every") -> Any:
    chosen = [row for row in ROWS if number == "every" or getattr(row, number) not in (None, "no")]
    return pytest.mark.parametrize("row", chosen, ids=lambda row: row.make.__name__)


SEEDS = st.integers(0, 10**6)
FEW = settings(deadline=None, max_examples=40)


def collect(gram: Gram | None, gradients: Tensor, aim: Tensor | None = None) -> None:
    """Has a `SharedHeadGram` collect these gradients (T, P), and that of the trusted rows (P,).

    A loss ``x · g`` of one row x has the gradient g; a row of zeros is that of an absent task.
    """
    assert gram is not None
    projected = torch.zeros(1, gradients.shape[1], dtype=gradients.dtype, requires_grad=True)
    graph = Graph(torch.ones(1, 1), projected, [])
    gram.add([(projected * row).sum() if row.any() else None for row in gradients], graph)
    if aim is not None:
        gram.add_trusted((projected * aim).sum(), graph)


def trained(strategy: Weighting, gradients: Tensor, losses: Any, step: int) -> WeightUpdate:
    """One step whose tasks have these gradients (T, P) and losses; NaN: the task is absent."""
    losses = torch.as_tensor(losses, dtype=torch.float64)
    theta = nn.Parameter(torch.zeros(gradients.shape[1], dtype=torch.float64))
    graph = Graph(torch.zeros(1, 1), torch.zeros(1, 1), [theta])
    present = ~losses.isnan()
    assert strategy.gram is not None
    strategy.gram.add(
        [row @ theta if here else None for row, here in zip(gradients, present, strict=True)], graph
    )
    strategy.observe(losses, present.long() * 4)
    update = strategy.update(step)
    assert update is not None
    return update


def make_gradnorm(tasks: int = 3, **changes: Any) -> GradNorm:
    static = {f"task{i}": 1.0 for i in range(tasks)}
    return GradNorm(static=static, gram=FullParameterGram(), **changes)
