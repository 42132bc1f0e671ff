"""Weights scaled to a sum inside bounds: sum, bounds, proportions, the plain formula."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from polyqwen.weighting.bounded_scale import scale_within_bounds


def tensor(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


@st.composite
def problems(draw: st.DrawFn) -> tuple[Tensor, float, Tensor, Tensor]:
    """Weights, a sum, and bounds around other weights, as a rate limit puts them."""
    size = draw(st.integers(1, 6))
    positive = st.lists(st.floats(1e-6, 1e6), min_size=size, max_size=size)
    weights, middle = tensor(*draw(positive)), tensor(*draw(positive))
    rate = draw(st.floats(1.0, 100.0))
    return weights, draw(st.floats(1e-3, 1e7)), middle / rate, middle * rate


@settings(deadline=None, max_examples=300)
@given(problems())
def test_the_sum_holds_where_the_bounds_leave_room_for_it(
    problem: tuple[Tensor, float, Tensor, Tensor],
) -> None:
    weights, total, low, high = problem
    scaled = scale_within_bounds(weights, total, low, high)
    assert ((scaled >= low) & (scaled <= high)).all()
    nearest = min(max(total, float(low.sum())), float(high.sum()))
    assert float(scaled.sum()) == pytest.approx(nearest, rel=1e-9)


@settings(deadline=None, max_examples=300)
@given(problems())
def test_weights_between_their_bounds_keep_their_proportions_and_the_others_lie_beyond(
    problem: tuple[Tensor, float, Tensor, Tensor],
) -> None:
    weights, total, low, high = problem
    scaled = scale_within_bounds(weights, total, low, high)
    ratio = scaled / weights
    inside = (scaled > low * (1 + 1e-9)) & (scaled < high * (1 - 1e-9))
    if inside.any():
        scale = ratio[inside].mean()
        assert torch.allclose(ratio[inside], scale, rtol=1e-6)
        assert (ratio[scaled <= low] >= scale * (1 - 1e-6)).all()
        assert (ratio[scaled >= high] <= scale * (1 + 1e-6)).all()


@settings(deadline=None)
@given(problems())
def test_without_a_bound_in_the_way_it_is_the_plain_formula(
    problem: tuple[Tensor, float, Tensor, Tensor],
) -> None:
    weights, total, _, _ = problem
    plain = weights * total / weights.sum()
    for low, high in ((plain / 2, plain * 2), (torch.zeros_like(plain), plain * torch.inf)):
        assert torch.equal(scale_within_bounds(weights, total, low, high), plain)


def test_by_hand() -> None:
    weights, low = tensor(0.1, 1.0, 2.0), tensor(0.5, 0.5, 0.5)
    high = tensor(2.0, 2.0, 1.5)
    # the first is held at .5, the third at 1.5: the second takes what is left
    assert scale_within_bounds(weights, 3.0, low, high).tolist() == pytest.approx([0.5, 1.0, 1.5])
    # only the first is held: the others share 2 as 1 : 2
    loose = scale_within_bounds(weights, 2.5, low, high)
    assert loose.tolist() == pytest.approx([0.5, 2 / 3, 4 / 3])
    unbounded = scale_within_bounds(weights, 3.0, low, tensor(*[torch.inf] * 3))
    assert unbounded.tolist() == pytest.approx([0.5, 2.5 / 3, 5 / 3])
    assert scale_within_bounds(weights, 1.0, low, high).tolist() == [0.5, 0.5, 0.5]  # no room
    assert scale_within_bounds(weights, 9.0, low, high).tolist() == [2.0, 2.0, 1.5]
