"""GradNorm: the paper's step, what it levels, and what it leaves alone."""

import math
from typing import Any

import pytest
import torch
from torch import nn

from tests.weighting.gradient_cases import ROWS, drawn, make, make_gradnorm, trained


def test_gradnorm_takes_the_papers_plain_step() -> None:
    strategy = make_gradnorm(2, alpha=1.0, lr=0.1, optimizer="sgd")
    gradients = torch.tensor([[1.0, 0.0], [0.0, 3.0]]).double()
    trained(strategy, gradients, [2.0, 4.0], 1)
    # ratios 1 and 1: norms 1 and 3 aim at 2, so w = (1 + .1, 1 − .3), then times 2 / 1.8
    assert strategy.base.tolist() == pytest.approx([1.1 * 2 / 1.8, 0.7 * 2 / 1.8])
    update = trained(strategy, gradients, [2.0, 1.0], 2)
    # ratios 1 and 1/4, so rates 1.6 and .4; norms 11/9 and 7/3 aim at 16/9 · rates
    assert list(update.causes["training_rate"].values()) == pytest.approx([1.6, 0.4])
    first, second = 11 / 9 + 0.1, 7 / 9 - 0.3
    assert strategy.base.tolist() == pytest.approx(
        [2 * first / (first + second), 2 * second / (first + second)]
    )


@pytest.mark.parametrize(("alpha", "signs"), [(1.0, (1, -1)), (2.0, (-1, 1))])
def test_gradnorms_rates_are_raised_to_alpha(alpha: float, signs: tuple[int, int]) -> None:
    """Rates .8 and 1.2: norms 11/9 and 7/3 aim at 16/9 · (.8, 1.2), but at 16/9 · (.64, 1.44)."""
    strategy = make_gradnorm(2, alpha=alpha, lr=0.1, optimizer="sgd")
    gradients = torch.tensor([[1.0, 0.0], [0.0, 3.0]]).double()
    trained(strategy, gradients, [2.0, 4.0], 1)
    assert strategy.base.tolist() == pytest.approx([11 / 9, 7 / 9])
    update = trained(strategy, gradients, [1.6, 4.8], 2)
    assert list(update.causes["training_rate"].values()) == pytest.approx([0.8, 1.2])
    first, second = 11 / 9 + 0.1 * signs[0], 7 / 9 + 0.3 * signs[1]
    assert strategy.base.tolist() == pytest.approx(
        [2 * first / (first + second), 2 * second / (first + second)]
    )


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_gradnorm_levels_norms_and_then_favours_the_task_that_lags(optimizer: str) -> None:
    strategy = make_gradnorm(2, alpha=1.0, lr=0.01, optimizer=optimizer)
    gradients = torch.tensor([[1.0, 0.0], [0.0, 4.0]]).double()
    for step in range(300):
        trained(strategy, gradients, [1.0, 1.0], step)
    assert strategy.base.tolist() == pytest.approx([1.6, 0.4], abs=0.05)
    for step in range(300):  # the second task's loss falls, the first one's stays
        trained(strategy, gradients, [1.0, 0.25], step)
    norms = (strategy.base * torch.tensor([1.0, 4.0])).tolist()
    assert norms[0] / norms[1] == pytest.approx(4.0, rel=0.1)


def test_gradnorms_adam_steps_do_not_depend_on_scale() -> None:
    weights = []
    for scale in (1e-8, 1.0, 1e8):
        strategy = make_gradnorm(3)
        for step in range(20):
            trained(strategy, drawn(step, 3) * scale, [1.0, 2.0, 3.0], step)
        weights.append(strategy.base.tolist())
    assert weights[0] == pytest.approx(weights[1]) and weights[2] == pytest.approx(weights[1])


def test_gradnorms_adam_is_torchs() -> None:
    strategy = make_gradnorm(2, alpha=0.0, lr=0.01, normalize="none")
    weight = nn.Parameter(torch.ones(2).double())
    adam = torch.optim.Adam([weight], lr=0.01, eps=0.0)
    for step in range(30):
        gradients = drawn(step, 2)
        trained(strategy, gradients, [1.0, 1.0], step)
        norms = weight * gradients.norm(dim=1)
        adam.zero_grad()
        (norms - norms.mean().detach()).abs().sum().backward()
        adam.step()
        assert torch.allclose(strategy.base, weight.detach())
    assert (weight.detach() - 1).abs().max() > 0.05


def test_gradnorm_leaves_absent_and_lone_tasks_alone() -> None:
    strategy = make_gradnorm(3)
    trained(strategy, drawn(0, 3), [1.0, 2.0, 3.0], 0)
    assert strategy.first.tolist() == [1.0, 2.0, 3.0]
    before = strategy.base.clone()
    trained(strategy, drawn(1, 3), [0.5, math.nan, 3.0], 1)
    assert strategy.base[1] == before[1] and strategy.base[0] != before[0]
    assert float(strategy.base[[0, 2]].sum()) == pytest.approx(2.0)
    before = strategy.base.clone()
    update = trained(strategy, drawn(2, 3), [math.nan, math.nan, 3.0], 2)
    assert torch.equal(strategy.base, before) and update.reason.startswith("fewer than two")


def test_gradnorm_stays_above_its_floor_and_refuses_losses_without_bound() -> None:
    strategy = make_gradnorm(2, lr=0.5, floor=0.01)
    for step in range(20):
        trained(strategy, torch.tensor([[1e8, 0.0], [0.0, 1e-3]]).double(), [1.0, 0.0], step)
    assert torch.isfinite(strategy.base).all()
    assert 0.005 < float(strategy.base[0]) <= 0.01
    assert make_gradnorm(2).lag == 1 and make(ROWS[0], 2).lag == 0
    with pytest.raises(ValueError, match="no known lower bound"):
        strategy.bind({"task0": 0.0, "task1": None})


@pytest.mark.parametrize("bad", [{"alpha": -1.0}, {"lr": 0.0}, {"optimizer": "x"}, {"floor": 0.0}])
def test_gradnorm_refuses(bad: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"weighting.{next(iter(bad))}"):
        make_gradnorm(**bad)
