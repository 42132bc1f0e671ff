"""Hand-computed values and properties of contrastive variants, regularisers and widths."""

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from polyqwen.losses.alignment import AlignmentLoss
from polyqwen.losses.angle import AnglELoss
from polyqwen.losses.cosine import CosineLoss
from polyqwen.losses.decoupled_nce import DecoupledNCELoss
from polyqwen.losses.hard_negative_nce import HardNegativeNCELoss
from polyqwen.losses.info_nce import InfoNCELoss
from polyqwen.losses.matryoshka import MatryoshkaLoss, truncate
from polyqwen.losses.score_huber import ScoreHuberLoss
from polyqwen.losses.score_mse import ScoreMSELoss
from polyqwen.losses.siglip import SigLIPLoss
from polyqwen.losses.similarity import first_occurrence
from polyqwen.losses.similarity_kl import SimilarityKLLoss
from polyqwen.losses.spread_out import SpreadOutLoss
from polyqwen.losses.types import Pairs
from polyqwen.losses.uniformity import UniformityLoss
from polyqwen.losses.variance import VarianceLoss
from polyqwen.metrics.space import uniformity
from tests.losses.loss_cases import random_pairs
from tests.weighting.plane import give, pairs, seeded, unit, value

seeds = given(st.integers(0, 2**31))


# --- contrastive ----------------------------------------------------------------------------------


def test_decoupled_by_hand() -> None:
    orthogonal = pairs([0, 90], [0, 90])  # positives at cosine 1, one negative each at 0
    assert value(DecoupledNCELoss(0.5), orthogonal) == pytest.approx(-2)
    out = DecoupledNCELoss(0.5)(pairs([30] * 5, [30] * 5))
    assert out.total.item() == pytest.approx(math.log(4))
    assert out.chance.item() == pytest.approx(math.log(4))


@pytest.mark.parametrize("temperature", [0.05, 0.5])
def test_decoupled_reaches_its_bound_and_the_bound_follows_the_temperature(
    temperature: float,
) -> None:
    loss, opposite = DecoupledNCELoss(), pairs([0, 180], [0, 180])
    loss.temperature = temperature
    assert loss.lower_bound == -2 / temperature
    assert value(loss, opposite) == pytest.approx(loss.lower_bound)


@seeds
@settings(max_examples=30, deadline=None)
def test_info_nce_is_softplus_of_the_decoupled_row(seed: int) -> None:
    p = Pairs(*(x[:1] for x in seeded(seed)[:5]))
    p = give(p, [10.0 + seed % 300, 77.0], [0, 0])
    decoupled = DecoupledNCELoss(0.5)(p).total
    expected = torch.nn.functional.softplus(decoupled).item()
    assert value(InfoNCELoss(0.5), p) == pytest.approx(expected)


@seeds
@settings(max_examples=30, deadline=None)
def test_hard_negatives_without_hardness_are_info_nce(seed: int) -> None:
    p = random_pairs(5, 3, seed, contents=9)
    plain = InfoNCELoss(0.2)(p)
    flat = HardNegativeNCELoss(0.2, beta=0.0)(p)
    torch.testing.assert_close(flat.total, plain.total)
    torch.testing.assert_close(flat.chance, plain.chance)
    assert value(HardNegativeNCELoss(0.2, beta=2.0), p) >= flat.total.item() - 1e-9


def test_hard_negatives_by_hand() -> None:
    p = give(pairs([0], [0]), [0, 90], [0, 0])  # logits 1 | 1, 0
    weights = [2 * math.e / (math.e + 1), 2 / (math.e + 1)]
    rivals = weights[0] * math.e + weights[1]
    expected = -math.log(math.e / (math.e + rivals))
    assert value(HardNegativeNCELoss(1.0, beta=1.0), p) == pytest.approx(expected)


def test_siglip_by_hand() -> None:
    p = pairs([0, 90], [0, 90])  # logits 2 + b and b
    expected = math.log(1 + math.exp(-1)) + math.log(1 + math.exp(-1))
    assert value(SigLIPLoss(0.5, bias=-1.0), p) == pytest.approx(expected)
    # a row alone is still pulled towards its document
    alone = pairs([0], [90])
    alone.query.requires_grad_()
    total = SigLIPLoss(0.5, bias=-1.0)(alone).total
    total.backward()
    assert total.item() == pytest.approx(math.log(1 + math.e))
    assert alone.query.grad[0, 1] < 0


@pytest.mark.parametrize("loss", [DecoupledNCELoss(), HardNegativeNCELoss(), SpreadOutLoss()])
def test_nothing_to_contrast_is_zero_with_a_graph(loss: torch.nn.Module) -> None:
    same = pairs([0, 50, 100], [20, 20, 20])
    same.document_key[:] = same.document_key[0]
    for p in (same, pairs([0], [90])):
        p.query.requires_grad_()
        out = loss(p)
        out.total.backward()
        assert out.total == 0 and out.chance == 0
        assert torch.equal(p.query.grad, torch.zeros_like(p.query))


@seeds
@settings(max_examples=30, deadline=None)
def test_more_of_the_own_document_is_no_negative(seed: int) -> None:
    """A hard negative that is the first row's own document changes nothing in that row."""
    p = Pairs(*(x[:1] for x in random_pairs(3, 0, seed)[:5]))
    other = random_pairs(1, 2, seed + 1)
    one = p._replace(
        negative=other.negative, negative_key=other.negative_key, negative_row=torch.zeros(2).long()
    )
    two = one._replace(
        negative=torch.cat([one.negative, p.document]),
        negative_key=torch.cat([one.negative_key, p.document_key]),
        negative_row=torch.zeros(3).long(),
    )
    renamed = two._replace(negative_key=two.negative_key + 1)
    losses = (DecoupledNCELoss(1.0), HardNegativeNCELoss(1.0), SigLIPLoss(1.0, 0.0))
    for loss in (*losses, SpreadOutLoss()):
        assert value(loss, two) == pytest.approx(value(loss, one), abs=1e-12)
        assert value(loss, renamed) != pytest.approx(value(loss, one), rel=0, abs=1e-9)


# --- the space ------------------------------------------------------------------------------------


def test_alignment_by_hand() -> None:
    p = pairs([0, 0], [180, 90])  # distances 2 and √2
    assert value(AlignmentLoss(), p) == pytest.approx(3) == 2 * value(CosineLoss(), p)
    assert value(AlignmentLoss(1.0), p) == pytest.approx((2 + math.sqrt(2)) / 2)


@pytest.mark.parametrize("alpha", [1.0, 1.5, 2.0])
def test_alignment_of_equal_embeddings_has_a_finite_gradient(alpha: float) -> None:
    p = pairs([10, 20], [10, 20])
    p.query.requires_grad_()
    total = AlignmentLoss(alpha)(p).total
    total.backward()
    assert total == 0 and torch.equal(p.query.grad, torch.zeros_like(p.query))


@pytest.mark.parametrize("t", [0.5, 2.0])
def test_uniformity_spans_its_range(t: float) -> None:
    loss = UniformityLoss(t)
    assert loss.lower_bound == -4 * t
    assert value(loss, pairs([0, 180], [90, 270])) == pytest.approx(-4 * t)
    assert value(loss, pairs([30, 30, 30], [80, 80, 80])) == pytest.approx(0)
    assert value(loss, pairs([0, 90], [30, 30])) == pytest.approx(-t)  # (−2t + 0) / 2


@seeds
@settings(max_examples=30, deadline=None)
def test_uniformity_is_the_monitors(seed: int) -> None:
    p = seeded(seed)
    expected = (uniformity(p.query) + uniformity(p.document)) / 2
    assert value(UniformityLoss(), p) == pytest.approx(expected)


def test_a_side_with_one_content_is_left_out() -> None:
    p = pairs([0, 180], [0, 180])
    p.document_key[1] = p.document_key[0]
    assert value(UniformityLoss(), p) == pytest.approx(-8)
    assert value(VarianceLoss(3.0), p) == value(VarianceLoss(3.0), pairs([0, 180], [0, 180]))
    p.query_key[1] = p.query_key[0]
    for loss in (UniformityLoss(), VarianceLoss()):
        p.query.grad = None
        p.query.requires_grad_()
        total = loss(p).total
        total.backward()
        assert total == 0 and torch.equal(p.query.grad, torch.zeros_like(p.query))


@seeds
@settings(max_examples=30, deadline=None)
def test_regularisers_count_a_content_once(seed: int) -> None:
    p = random_pairs(5, 0, seed)
    twice = Pairs(*(torch.cat([x, x[:2]]) for x in p[:5]))
    for loss in (UniformityLoss(), VarianceLoss(2.0)):
        assert value(loss, twice) == pytest.approx(value(loss, p))


def test_spread_out_by_hand() -> None:
    basis = pairs([0, 90], [0, 90])  # non-matching cosines 0
    assert value(SpreadOutLoss(), basis) == pytest.approx(0)
    assert value(SpreadOutLoss(), pairs([5, 5, 5], [5, 5, 5])) == pytest.approx(2 - 1 / 2)
    p = pairs([0, 60], [0, 60])  # non-matching cosines 1/2: below the second moment's 1/D
    assert value(SpreadOutLoss(), p) == pytest.approx(0.25)


def test_variance_by_hand() -> None:
    p = pairs([0, 90, 180, 270], [0, 0, 0, 0])  # √2 times ±1 and 0 twice: variance 4/3
    deviation = math.sqrt(4 / 3 + 1e-4)
    expected = ((2 - deviation) + (2 - math.sqrt(1e-4))) / 2
    assert value(VarianceLoss(2.0), p) == pytest.approx(expected)


def test_first_occurrence() -> None:
    key = torch.tensor([7, -3, 7, 7, 2, -3])
    assert first_occurrence(key).tolist() == [True, True, False, False, True, False]
    assert first_occurrence(key[:0]).tolist() == []


# --- widths ---------------------------------------------------------------------------------------


@seeds
@settings(max_examples=30, deadline=None)
def test_one_full_width_is_the_loss_itself(seed: int) -> None:
    p = random_pairs(4, 2, seed)
    for loss in (InfoNCELoss(0.2), ScoreMSELoss(), UniformityLoss()):
        whole = MatryoshkaLoss(loss, [4])
        assert value(whole, p) == pytest.approx(value(loss, p))
        assert whole.lower_bound == loss.lower_bound


def test_widths_are_renormalised_and_weighted() -> None:
    p = random_pairs(4, 2, seed=0)
    out = MatryoshkaLoss(InfoNCELoss(0.2), dims=[1, 3], weights=[2, 6])(p)
    short = truncate(p, 3)
    torch.testing.assert_close(short.query.norm(dim=1), torch.ones(4).double())
    torch.testing.assert_close(short.negative.norm(dim=1), torch.ones(2).double())
    parts = {dim: InfoNCELoss(0.2)(truncate(p, dim)) for dim in (1, 3)}
    torch.testing.assert_close(out.total, 0.25 * parts[1].total + 0.75 * parts[3].total)
    assert {name: part.item() for name, part in out.components.items()} == {
        f"info_nce@{dim}": part.total.item() for dim, part in parts.items()
    }


def test_a_beginning_without_length_has_no_gradient() -> None:
    p = pairs([90, 0], [90, 0])  # the first query is (0, 1)
    query = unit([90, 0]).round().requires_grad_()
    MatryoshkaLoss(CosineLoss(), [1])(p._replace(query=query)).total.backward()
    assert query.grad.isfinite().all() and not query.grad[0].any()


def test_temperature_reaches_through_the_widths() -> None:
    loss = MatryoshkaLoss(InfoNCELoss(0.2), [2])
    loss.temperature = 0.5
    assert loss.temperature == loss.loss.temperature == 0.5
    assert not hasattr(MatryoshkaLoss(ScoreMSELoss(), [2]), "temperature")


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: DecoupledNCELoss(0.0), "temperature is 0.0"),
        (lambda: HardNegativeNCELoss(beta=-1.0), "beta is -1.0"),
        (lambda: SigLIPLoss(-0.1), "temperature is -0.1"),
        (lambda: SigLIPLoss(bias=float("inf")), "bias is inf"),
        (lambda: AnglELoss(float("nan")), "temperature is nan"),
        (lambda: ScoreHuberLoss(0.0), "delta is 0.0"),
        (lambda: SimilarityKLLoss(0.0), "temperature is 0.0"),
        (lambda: AlignmentLoss(0.5), "alpha is 0.5"),
        (lambda: UniformityLoss(0.0), "t is 0.0"),
        (lambda: VarianceLoss(-1.0), "gamma is -1.0"),
        (lambda: MatryoshkaLoss(CosineLoss(), []), r"dims is \[\]"),
        (lambda: MatryoshkaLoss(CosineLoss(), [2, 2]), r"dims is \[2, 2\]"),
        (lambda: MatryoshkaLoss(CosineLoss(), [0, 2]), r"dims is \[0, 2\]"),
        (lambda: MatryoshkaLoss(CosineLoss(), [1, 2], [1.0]), r"weights is \[1.0\]"),
        (lambda: MatryoshkaLoss(CosineLoss(), [1, 2], [1.0, 0.0]), "weights is 0.0"),
        (lambda: MatryoshkaLoss(CosineLoss(), [1, 3])(seeded(0)), "dims holds 3, .* 2 dimensions"),
    ],
)
def test_wrong_arguments_are_named(build: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()
