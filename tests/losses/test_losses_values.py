"""Hand-computed values, properties and switches of the single losses."""

import math
import warnings
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from polyqwen.losses.cosent import CoSENTLoss
from polyqwen.losses.cosine import CosineLoss
from polyqwen.losses.grounded import GroundedLoss
from polyqwen.losses.info_nce import InfoNCELoss
from polyqwen.losses.instruction import InstructionLoss
from polyqwen.losses.rank_hinge import PairwiseRankLoss
from polyqwen.losses.score_mse import ScoreMSELoss
from polyqwen.losses.scored_text import ScoredTextLoss
from polyqwen.losses.similarity import negative_mask, own_negative_mask
from polyqwen.losses.triplet import TripletLoss
from polyqwen.losses.types import Pairs
from tests.weighting.plane import give, pairs, seeded, unit, value

# --- values ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("rows", [2, 5, 9])
def test_equal_embeddings_give_log_of_the_candidates(rows: int, symmetric: bool) -> None:
    out = InfoNCELoss(symmetric=symmetric)(pairs([30.0] * rows, [30.0] * rows))
    assert out.total.item() == pytest.approx(math.log(rows))
    assert out.chance.item() == pytest.approx(math.log(rows))


def test_chance_counts_hard_negatives_and_skips_masked_candidates() -> None:
    p = give(pairs([0] * 4, [0] * 4), [0, 0, 0], [0, 1, 1])
    assert InfoNCELoss()(p).chance.item() == pytest.approx(math.log(7))
    p.document_key[1] = p.document_key[0]  # rows 0 and 1 keep 6 candidates each
    out = InfoNCELoss()(p)
    assert out.chance.item() == pytest.approx((math.log(6) + math.log(7)) / 2)
    assert out.total.item() == pytest.approx(out.chance.item())


def test_values_by_hand() -> None:
    orthogonal = pairs([0, 90], [0, 90], [1.0, 0.5])  # positives at cosine 1, negatives at 0
    assert value(InfoNCELoss(0.5), orthogonal) == pytest.approx(math.log(1 + math.exp(-2)))
    assert value(TripletLoss(0.2), orthogonal) == 0
    assert value(TripletLoss(1.5), orthogonal) == pytest.approx(0.5)
    assert value(CosineLoss(), orthogonal) == pytest.approx(0)
    assert value(ScoreMSELoss(), orthogonal) == pytest.approx(0.125)  # ŝ = 1 twice
    assert value(PairwiseRankLoss(0.05), orthogonal) == pytest.approx(0.05)  # ŝ tie
    assert value(CoSENTLoss(), orthogonal) == pytest.approx(math.log(2))
    reverse = pairs([0, 0], [180, 0], [1.0, 0.0])  # ŝ = 0 and 1, in the wrong order
    assert value(PairwiseRankLoss(0.05), reverse) == pytest.approx(1.05)
    assert value(CoSENTLoss(0.05), reverse) == pytest.approx(40, abs=1e-9)
    assert value(ScoreMSELoss(), reverse) == pytest.approx(1)
    assert value(CosineLoss(), reverse) == pytest.approx(1)


def test_triplet_takes_the_hardest_or_the_given_negative() -> None:
    p = give(pairs([0, 180], [60, 120]), [90, 0], [0, 1])
    # Row 0: positive at cosine 0.5; in-batch −0.5, its own given 0, the other row's given 1.
    # Row 1: positive at cosine 0.5; in-batch −0.5, its own given −1, the other row's given 0.
    hardest, own = [1 - 0.5 + 0.6, 0 - 0.5 + 0.6], [0 - 0.5 + 0.6, 0.0]
    assert value(TripletLoss(0.6), p) == pytest.approx(sum(hardest) / 2)
    assert value(TripletLoss(0.6, given_only=True), p) == pytest.approx(sum(own) / 2)
    single = p._replace(negative_row=torch.tensor([0, 0]))  # row 1 has none and does not count
    assert value(TripletLoss(0.6, given_only=True), single) == pytest.approx(hardest[0])


# --- masks and row weights ------------------------------------------------------------------------


def test_false_negatives() -> None:
    p = Pairs(
        query=torch.ones(4, 1),
        document=torch.ones(4, 1),
        query_key=torch.tensor([1, 1, 2, 3]),
        document_key=torch.tensor([10, 11, 10, 1]),
        negative=torch.ones(3, 1),
        negative_key=torch.tensor([11, 12, 3]),
        negative_row=torch.tensor([2, 0, 0]),
    )
    assert negative_mask(p).int().tolist() == [
        [0, 0, 0, 0, 0, 1, 1],  # 10 and 11 both belong to query 1; document 1 is the query
        [0, 0, 0, 0, 0, 1, 1],
        [0, 1, 0, 1, 1, 1, 1],
        [1, 1, 1, 0, 1, 1, 0],  # hard negative 3 is the query
    ]
    assert own_negative_mask(p).nonzero().tolist() == [[0, 5], [0, 6], [2, 4]]


@given(st.integers(0, 2**32), st.integers(0, 5))
@settings(max_examples=30, deadline=None)
def test_a_duplicate_of_the_positive_changes_nothing(seed: int, row: int) -> None:
    p, only = seeded(seed), torch.zeros(6).index_fill(0, torch.tensor([row]), 1.0)
    grown = Pairs(
        query=torch.cat([p.query, unit([200])]),
        document=torch.cat([p.document, p.document[row : row + 1]]),
        query_key=torch.cat([p.query_key, torch.tensor([77])]),
        document_key=torch.cat([p.document_key, p.document_key[row : row + 1]]),
    )
    loss, padded = InfoNCELoss(), torch.cat([only, torch.zeros(1)])
    torch.testing.assert_close(loss(grown, padded).total, loss(p, only).total)
    others = loss(grown, 1 - padded).total  # while it is one more negative for the other rows
    assert others != loss(p, 1 - only).total


@given(st.integers(0, 2**32))
@settings(max_examples=30, deadline=None)
def test_row_weight_is_a_weighted_mean_over_rows(seed: int) -> None:
    p, loss = seeded(seed), InfoNCELoss(symmetric=True)
    rows = torch.stack([loss(p, row).total for row in torch.eye(6)])  # (6,)
    weight = torch.tensor([0.0, 0.1, 2.0, 0.0, 1.0, 0.3], dtype=torch.float64)
    expected = (weight * rows).sum() / weight.sum()
    torch.testing.assert_close(loss(p, weight).total, expected)
    torch.testing.assert_close(loss(p, 5 * weight).total, expected)
    torch.testing.assert_close(loss(p, torch.ones(6)).total, loss(p).total)


def test_rows_of_weight_zero_stay_negatives() -> None:
    p = seeded(0)
    p.document.requires_grad_()
    InfoNCELoss()(p, torch.tensor([1.0, 0, 0, 0, 0, 0])).total.backward()
    assert (p.document.grad.norm(dim=1) > 0).all()


def test_all_zero_weights_give_zero_with_a_graph() -> None:
    p = seeded(0)
    p.query.requires_grad_()
    out = InfoNCELoss()(p, torch.zeros(6))
    out.total.backward()
    assert out.total == 0
    assert out.chance == 0
    assert torch.equal(p.query.grad, torch.zeros_like(p.query))


@pytest.mark.parametrize("rows", [1, 5, 7])
def test_row_weight_of_another_length_is_an_error(rows: int) -> None:
    with pytest.raises(ValueError, match="row_weight has shape"):
        InfoNCELoss()(seeded(0), torch.ones(rows))


def test_one_row_warns_once() -> None:
    loss, p = InfoNCELoss(), pairs([0], [90])
    p.query.requires_grad_()
    with pytest.warns(UserWarning, match="nothing to contrast"):
        total = loss(p).total
    total.backward()
    assert total == 0
    assert torch.equal(p.query.grad, torch.zeros_like(p.query))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loss(p)
        assert value(InfoNCELoss(), give(pairs([0], [90]), [0], [0])) > 1  # has a negative


# --- properties -----------------------------------------------------------------------------------


@given(st.integers(0, 2**32), st.floats(0.2, 5.0))
@settings(max_examples=30, deadline=None)
@pytest.mark.parametrize("loss", [PairwiseRankLoss(), CoSENTLoss()], ids=["rank", "cosent"])
def test_only_the_order_of_scores_matters(loss: nn.Module, seed: int, power: float) -> None:
    p = seeded(seed)
    assert value(loss, p) == value(loss, p._replace(score=p.score**power))
    turned = value(loss, p._replace(score=1 - p.score))
    assert turned != pytest.approx(value(loss, p), abs=1e-12)


@given(st.integers(0, 2**32), st.floats(0, 360))
@settings(max_examples=30, deadline=None)
def test_rotation_and_swapped_sides(seed: int, turn: float) -> None:
    p = seeded(seed)
    rotation = torch.stack([unit([turn])[0], unit([turn + 90])[0]])  # (2, 2)
    rotated = p._replace(query=p.query @ rotation, document=p.document @ rotation)
    swapped = Pairs(p.document, p.query, p.document_key, p.query_key, p.score)
    for loss in (InfoNCELoss(symmetric=True), GroundedLoss(), ScoredTextLoss(), InstructionLoss()):
        assert value(loss, rotated) == pytest.approx(value(loss, p), abs=1e-9)
    loss = InfoNCELoss(symmetric=True)
    assert value(loss, swapped) == pytest.approx(value(loss, p), abs=1e-9)


@pytest.mark.parametrize(
    ("loss", "adds_up"),
    [(ScoreMSELoss(), True), (CosineLoss(), True), (InfoNCELoss(), False), (TripletLoss(), False)],
    ids=["score_mse", "cosine", "info_nce", "triplet"],
)
def test_accumulation(loss: nn.Module, adds_up: bool) -> None:
    """Losses of single pairs accumulate exactly; those that compare rows lose negatives."""
    p = seeded(3, rows=8)
    halves = [Pairs(*(x[part] for x in p[:5])) for part in (slice(0, 4), slice(4, 8))]
    accumulated = sum(value(loss, half) for half in halves) / 2
    whole = value(loss, p)
    assert whole > 0.01
    if adds_up:
        assert accumulated == pytest.approx(whole)
    else:
        assert accumulated < whole - 0.01


# --- composites -----------------------------------------------------------------------------------


def test_gates_differ_and_meet_where_they_should() -> None:
    p = seeded(5)
    built = {
        gate: ScoredTextLoss(score_gate=gate, score_threshold=0.5)
        for gate in ("none", "threshold", "weight")
    }
    values = {gate: value(loss, p) for gate, loss in built.items()}
    assert 0 < (p.score >= 0.5).sum() < 6
    assert len({round(v, 6) for v in values.values()}) == 3
    certain = p._replace(score=torch.ones(6))
    assert len({round(value(loss, certain), 6) for loss in built.values()}) == 1
    nothing = built["threshold"](p._replace(score=p.score / 2.1))
    assert nothing.components["info_nce"] == 0
    assert nothing.total > 0  # the other two terms go on


def test_total_is_the_weighted_sum_of_components_and_follows_its_attributes() -> None:
    text, grounded, p = ScoredTextLoss(), GroundedLoss(), seeded(6)
    for score_weight, rank_weight, triplet_weight, tau in [(1.0, 1.0, 1.0, 0.07), (0.5, 3, 2, 0.1)]:
        text.score_weight, text.rank_weight, text.temperature = score_weight, rank_weight, tau
        grounded.triplet_weight, grounded.temperature = triplet_weight, tau
        c, g = text(p).components, grounded(p).components
        expected = c["info_nce"] + score_weight * c["score_mse"] + rank_weight * c["rank"]
        torch.testing.assert_close(text(p).total, expected)
        torch.testing.assert_close(grounded(p).total, g["info_nce"] + triplet_weight * g["triplet"])
        assert c["info_nce"].item() == g["info_nce"].item() == value(InfoNCELoss(tau), p)


@pytest.mark.parametrize("loss", [ScoredTextLoss(), GroundedLoss(), InstructionLoss()])
def test_temperature_reaches_the_inner_loss(loss: nn.Module) -> None:
    before = value(loss, seeded(7))
    loss.temperature = 0.5
    assert loss.temperature == loss.info_nce.temperature == 0.5
    assert value(loss, seeded(7)) < before


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: InfoNCELoss(0.0), "temperature is 0.0"),
        (lambda: InfoNCELoss(float("nan")), "temperature is nan"),
        (lambda: CoSENTLoss(-1.0), "temperature is -1.0"),
        (lambda: TripletLoss(-0.1), "margin is -0.1"),
        (lambda: PairwiseRankLoss(float("inf")), "margin is inf"),
        (lambda: GroundedLoss(triplet_weight=-1.0), "triplet_weight is -1.0"),
        (lambda: ScoredTextLoss(score_weight=-1.0), "score_weight is -1.0"),
        (lambda: ScoredTextLoss(rank_weight=-1.0), "rank_weight is -1.0"),
        (lambda: ScoredTextLoss(rank_margin=-1.0), "rank_margin is -1.0"),
        (lambda: ScoredTextLoss(score_gate="soft"), "score_gate is 'soft': choose one of"),
        (lambda: ScoredTextLoss(score_threshold=1.5), "score_threshold is 1.5"),
        (lambda: InfoNCELoss()(give(seeded(0), [0], [0])._replace(negative_key=None)), "_key is"),
        (
            lambda: TripletLoss(given_only=True)(
                give(seeded(0), [0], [0])._replace(negative_row=None)
            ),
            "negative_row is None",
        ),
    ],
)
def test_wrong_arguments_are_named(build: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()
