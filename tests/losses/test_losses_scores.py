"""Hand-computed values and properties of the losses that read scores."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from polyqwen.losses.angle import AnglELoss, angle_similarity
from polyqwen.losses.cosent import CoSENTLoss
from polyqwen.losses.margin_mse import MarginMSELoss
from polyqwen.losses.pearson import PearsonLoss
from polyqwen.losses.score_huber import ScoreHuberLoss
from polyqwen.losses.score_mse import ScoreMSELoss
from polyqwen.losses.similarity import unit_similarity
from polyqwen.losses.similarity_kl import SimilarityKLLoss
from polyqwen.losses.types import Pairs
from tests.losses import loss_oracles as slow
from tests.losses.loss_cases import random_pairs
from tests.weighting.plane import pairs, seeded, value

seeds = given(st.integers(0, 2**32))


def perfect(shift: float = 0.0) -> Pairs:
    """Predicted similarities 0.5, 0.75, 1 with these scores, all shifted alike."""
    scores = [0.5 - shift, 0.75 - shift, 1.0 - shift]
    return pairs([0, 0, 0], [90, 60, 0], scores)


def test_huber_by_hand() -> None:
    p = pairs([0, 0], [90, 0], [0.45, 0.6])  # residuals −0.05 and −0.4
    parts = [0.05**2 / 2, 0.1 * (0.4 - 0.05)]
    assert value(ScoreHuberLoss(0.1), p) == pytest.approx(sum(parts) / 2)
    far = pairs([0], [180], [1.0])
    assert value(ScoreHuberLoss(0.25), far) == pytest.approx(0.25 * (1 - 0.125))  # its maximum


@seeds
@settings(max_examples=30, deadline=None)
def test_huber_is_at_most_half_the_squared_distance(seed: int) -> None:
    p = seeded(seed)
    half = value(ScoreMSELoss(), p) / 2
    assert value(ScoreHuberLoss(0.05), p) <= half
    assert value(ScoreHuberLoss(1.0), p) == pytest.approx(half)


def test_pearson_by_hand() -> None:
    assert value(PearsonLoss(), perfect()) == pytest.approx(0)
    assert value(PearsonLoss(), pairs([0, 0], [180, 0], [1.0, 0.0])) == pytest.approx(2)
    # cosines 1, 0, 1 and scores 0, 0.5, 1 have no covariance
    assert value(PearsonLoss(), pairs([0, 0, 0], [0, 90, 0], [0.0, 0.5, 1.0])) == pytest.approx(1)


@given(st.integers(0, 2**32), st.floats(0.1, 1.0), st.floats(0.0, 1.0))
@settings(max_examples=30, deadline=None)
def test_pearson_takes_any_linear_scale(seed: int, slope: float, shift: float) -> None:
    p = seeded(seed)
    before = value(PearsonLoss(), p)
    assert value(PearsonLoss(), p._replace(score=slope * p.score + shift)) == pytest.approx(before)
    turned = value(PearsonLoss(), p._replace(score=1 - p.score))
    assert turned == pytest.approx(2 - before)


def test_pearson_without_spread() -> None:
    for scores in ([0.3, 0.3, 0.3], [0.1, 0.1, 0.1]):
        p = pairs([0, 0, 0], [10, 50, 90], scores)
        p.query.requires_grad_()
        total = PearsonLoss()(p).total
        total.backward()
        assert total == 0 and torch.equal(p.query.grad, torch.zeros_like(p.query))
    collapsed = pairs([0, 0], [30, 30], [0.0, 1.0])
    collapsed.query.requires_grad_()
    total = PearsonLoss()(collapsed).total
    total.backward()
    assert total == 1  # a collapse is no optimum
    assert collapsed.query.grad.isfinite().all() and collapsed.query.grad.abs().max() > 0


def test_angle_by_hand() -> None:
    """In the plane the halves are the real and the imaginary part of one complex number."""
    p = pairs([0, 45, 90, 0], [0, 0, 0, 180], [0.0, 0.0, 1.0, 0.0])
    # |cos + sin| of the angle from document to query; opposite counts as equal
    near = [1, math.sqrt(2), 1, 1]
    assert angle_similarity(p).tolist() == pytest.approx(near)
    terms = [math.exp((y - near[2]) / 0.5) for y in (near[0], near[1], near[3])]
    assert value(AnglELoss(0.5), p) == pytest.approx(math.log(1 + sum(terms)))


def test_angle_has_a_gradient_where_the_cosine_is_flat() -> None:
    p = pairs([0, 0], [0, 0], [0.0, 1.0])
    slopes = {}
    for loss in (AnglELoss(1.0), CoSENTLoss(1.0)):
        turn = torch.zeros(2, dtype=torch.float64, requires_grad=True)
        query = torch.stack([turn.cos(), turn.sin()], dim=1)
        loss(p._replace(query=query)).total.backward()
        slopes[type(loss)] = turn.grad.abs().max().item()
    assert slopes[CoSENTLoss] == pytest.approx(0, abs=1e-12)
    assert slopes[AnglELoss] == pytest.approx(0.5)


def test_angle_of_an_odd_size_is_an_error() -> None:
    p = pairs([0, 1], [2, 3], [0.0, 1.0])
    wide = torch.nn.functional.pad(p.query, (0, 1))
    with pytest.raises(ValueError, match="their size is 3: give an even output_size"):
        AnglELoss()(p._replace(query=wide, document=wide))


def test_kl_by_hand() -> None:
    p = pairs([0, 0], [0, 180], [0.5, 0.5])  # the teacher is even; ŝ = 1, 0
    top = 1 / (1 + math.exp(-2))  # Q of the first row at τ = 0.5
    expected = 0.5 * math.log(0.5 / top) + 0.5 * math.log(0.5 / (1 - top))
    assert value(SimilarityKLLoss(0.5), p) == pytest.approx(expected)


def test_margin_mse_by_hand() -> None:
    p = pairs([0, 0], [0, 180], [0.25, 0.5])  # margins −0.25 and 1
    assert value(MarginMSELoss(), p) == pytest.approx(1.25**2)
    assert value(MarginMSELoss(), pairs([0, 0], [0, 180], [0.0, 1.0])) == pytest.approx(4)


@pytest.mark.parametrize("shift", [0.0, 0.1, 0.5])
@pytest.mark.parametrize("same_query", [False, True])
def test_a_common_shift_of_the_teacher_is_free(shift: float, same_query: bool) -> None:
    for loss in (SimilarityKLLoss(0.1, same_query), MarginMSELoss(same_query)):
        assert value(loss, perfect(shift)) == pytest.approx(0, abs=1e-12)


@seeds
@settings(max_examples=30, deadline=None)
def test_margin_mse_is_twice_the_variance_of_the_residual(seed: int) -> None:
    p = seeded(seed)
    residual = p.score - unit_similarity(p)
    assert value(MarginMSELoss(), p) == pytest.approx(2 * residual.var().item())


@seeds
@settings(max_examples=30, deadline=None)
def test_lists_of_one_query(seed: int) -> None:
    """Rows of two queries give the divergences and margins of the two lists on their own."""
    p = random_pairs(8, 0, seed % 2**31)._replace(query_key=torch.tensor([1, 2, 2, 1, 1, 2, 1, 1]))
    kl, margin = SimilarityKLLoss(0.2, same_query=True), MarginMSELoss(same_query=True)
    assert value(kl, p) == pytest.approx(slow.similarity_kl(p, 0.2, same_query=True))
    assert value(margin, p) == pytest.approx(slow.margin_mse(p, same_query=True))
    lists = [Pairs(*(x[p.query_key == k] for x in p[:5])) for k in (1, 2)]
    apart = [value(SimilarityKLLoss(0.2), part) * len(part.query) / 8 for part in lists]
    assert value(kl, p) == pytest.approx(sum(apart))
    moved = p._replace(score=p.score + 0.5 * (p.query_key == 2))  # a level for each query
    assert value(kl, moved) == pytest.approx(value(kl, p), abs=1e-7)
    assert value(margin, moved) == pytest.approx(value(margin, p), abs=1e-7)
    assert value(MarginMSELoss(), moved) != pytest.approx(value(MarginMSELoss(), p), abs=1e-7)
